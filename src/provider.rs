//! The providers: one row each. Trakt and `MyAnimeList` differ by data, not by code.
//!
//! A third provider is a third row. This file never does IO.

/// How a provider wants its request bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
    Form,
}

/// A key of the `authorization` block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `access_token`
    AccessToken,
    /// `token_type`
    TokenType,
    /// `expires_in`
    ExpiresIn,
    /// `refresh_token`
    RefreshToken,
    /// `scope`
    Scope,
    /// `created_at`
    CreatedAt,
}

impl Key {
    /// The key as the file and RFC 6749 spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::TokenType => "token_type",
            Self::ExpiresIn => "expires_in",
            Self::RefreshToken => "refresh_token",
            Self::Scope => "scope",
            Self::CreatedAt => "created_at",
        }
    }
}

/// How a person authorizes when no refresh token works any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// A code to enter on a page (RFC 8628), or a PIN in the config.
    Device {
        /// Where a device code is asked for.
        code_path: &'static str,
        /// Where the answer is polled for.
        token_path: &'static str,
        /// The page for a person.
        page: &'static str,
    },
    /// A page whose last address is pasted back (RFC 7636 with method `plain`).
    PastedUrl {
        /// The authorization endpoint.
        authorize_path: &'static str,
    },
}

/// One provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// The section's key in `config.yml`.
    pub name: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// The origin of every OAuth endpoint, without a slash at its end.
    pub auth_url: &'static str,
    /// The token endpoint below it.
    pub token_path: &'static str,
    /// The revocation endpoint below it (RFC 7009), where there is one.
    pub revoke_path: Option<&'static str>,
    /// The encoding of the token endpoint's bodies.
    pub encoding: Encoding,
    /// The `error` codes (RFC 6749 section 5.2) by which it calls a refresh token or a code dead.
    pub dead_errors: &'static [&'static str],
    /// The `redirect_uri` that the application was registered with, where requests must name one.
    pub redirect_uri: Option<&'static str>,
    /// The keys of the `authorization` block, in Kometa's order.
    pub keys: &'static [Key],
    /// Every key that Kometa knows in the section.
    pub known_keys: &'static [&'static str],
    /// The key beside the block that holds something to exchange once.
    pub once_key: &'static str,
    /// How a person authorizes.
    pub login: Login,
    /// Where a person makes or looks up the application's credentials.
    pub applications_page: &'static str,
}

/// Trakt. Sources: the trakt-api repository, `projects/api/src/contracts/oauth`, and the
/// announcement of July 2026 that moved OAuth to its own host.
pub static TRAKT: Provider = Provider {
    name: "trakt",
    title: "Trakt",
    auth_url: "https://auth.trakt.tv",
    token_path: "/oauth/token",
    revoke_path: Some("/oauth/revoke"),
    encoding: Encoding::Json,
    dead_errors: &["invalid_grant"],
    redirect_uri: Some("urn:ietf:wg:oauth:2.0:oob"),
    keys: &[Key::AccessToken, Key::TokenType, Key::ExpiresIn, Key::RefreshToken, Key::Scope, Key::CreatedAt],
    known_keys: &["client_id", "client_secret", "pin", "force_refresh", "authorization"],
    once_key: "pin",
    login: Login::Device {
        code_path: "/oauth/device/code",
        token_path: "/oauth/device/token",
        page: "https://trakt.tv/activate",
    },
    applications_page: "https://trakt.tv/oauth/applications",
};

/// `MyAnimeList`. Source: <https://myanimelist.net/apiconfig/references/authorization>; and for its
/// `invalid_request` what its clients saw in July 2025: "The refresh token is invalid", with status 401.
/// A request that lacks nothing and is called invalid has nothing else in it that could be.
pub static MAL: Provider = Provider {
    name: "mal",
    title: "MyAnimeList",
    auth_url: "https://myanimelist.net",
    token_path: "/v1/oauth2/token",
    revoke_path: None,
    encoding: Encoding::Form,
    dead_errors: &["invalid_grant", "invalid_request"],
    redirect_uri: None,
    keys: &[Key::AccessToken, Key::TokenType, Key::ExpiresIn, Key::RefreshToken],
    known_keys: &["client_id", "client_secret", "cache_expiration", "localhost_url", "authorization"],
    once_key: "localhost_url",
    login: Login::PastedUrl { authorize_path: "/v1/oauth2/authorize" },
    applications_page: "https://myanimelist.net/apiconfig",
};

/// Every provider, in the order in which they are looked for.
pub static PROVIDERS: [&Provider; 2] = [&TRAKT, &MAL];

/// The provider of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Provider> {
    PROVIDERS.into_iter().find(|provider| provider.name == name)
}
