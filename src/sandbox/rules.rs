//! What the providers do, where that can be chosen: mostly where the real ones do not say.
//!
//! Invariant: the defaults are what the providers document. This file never does IO.

use crate::token::Secret;

/// What becomes of the old pair when a refresh token is spent. Which of these the real
/// providers follow is not documented, so a client has to be right under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Both old tokens die in the same moment.
    #[default]
    Strict,
    /// Both old tokens live until the new pair is first used, as Doorkeeper can do it.
    Grace,
    /// The old refresh token dies, the old access token lives on; and whoever presents a spent
    /// refresh token kills every pair that descends from the same authorization
    /// (RFC 9700 section 4.14.2).
    Family,
}

/// How a dead token is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadAnswer {
    /// 400 and `invalid_grant` (RFC 6749 section 5.2).
    #[default]
    InvalidGrant,
    /// 401 and `invalid_grant`, as Trakt did formerly.
    Unauthorized,
    /// 401, `invalid_request` and a message that the refresh token is invalid: how the PHP
    /// library `league/oauth2-server` did it before version 9, and how clients of `MyAnimeList`
    /// reported its answer in 2025.
    InvalidRequest,
}

/// An application that the provider knows.
#[derive(Clone)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// Its secret; wrong ones are refused, absent ones are fine.
    pub secret: Option<Secret>,
    /// The only `redirect_uri` that it may name.
    pub redirect_uri: Option<String>,
}

/// What the provider does, where that can be chosen.
#[derive(Clone)]
pub struct Rules {
    /// What becomes of the old pair.
    pub rotation: Rotation,
    /// Lifetime of access tokens; none means a week for Trakt and 31 days for `MyAnimeList`.
    pub lifetime_s: Option<i64>,
    /// Lifetime of unused refresh tokens; none means for ever for Trakt, where nobody knows, and
    /// 31 days for `MyAnimeList`, which documents a month.
    pub refresh_lifetime_s: Option<i64>,
    /// Lifetime of PINs and authorization codes.
    pub code_lifetime_s: i64,
    /// Lifetime of device codes.
    pub device_lifetime_s: i64,
    /// How long a client has to wait between two polls for a device code.
    pub device_interval_s: i64,
    /// The page to enter a user code on; none means this server's own.
    pub verification_url: Option<String>,
    /// The seconds that have to pass between two POSTs of a client; none means no limit.
    pub post_interval_s: Option<i64>,
    /// The known applications; empty means that any `client_id` will do.
    pub clients: Vec<Client>,
    /// How a dead token is refused.
    pub dead: DeadAnswer,
    /// Whose account it is.
    pub username: String,
    /// What every token's text is made from.
    pub seed: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rotation: Rotation::default(),
            lifetime_s: None,
            refresh_lifetime_s: None,
            code_lifetime_s: 600,
            device_lifetime_s: 600,
            device_interval_s: 5,
            verification_url: None,
            post_interval_s: None,
            clients: Vec::new(),
            dead: DeadAnswer::default(),
            username: "sandbox".to_owned(),
            seed: 1,
        }
    }
}
