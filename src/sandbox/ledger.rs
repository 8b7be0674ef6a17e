//! The ledger: every pair of tokens ever issued, and what became of it.
//!
//! Invariant: nothing is ever removed. A test asks afterwards which token was
//! spent when, how often it came back, and which pair is alive. Time is an
//! argument. This file never does IO and never reads a clock.

use super::codes::Codes;
use super::mint::Mint;
use super::rules::{Rotation, Rules};
use crate::provider::{MAL, Provider};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};
use std::collections::BTreeMap;

/// Where a pair came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made by the test or the demo.
    Given,
    /// A refresh token was spent.
    Refresh,
    /// A PIN or an authorization code was redeemed.
    Code,
    /// A device code was approved.
    Device,
}

/// Why a token lives no more, although its time is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was spent for the next pair.
    Spent,
    /// The next pair was used.
    Superseded,
    /// A spent token of its family was presented.
    Reuse,
    /// The client asked for it, or a test did.
    Revoked,
}

/// A pair of tokens.
#[derive(Clone)]
pub struct Entry {
    /// The provider's key in `config.yml`.
    pub provider: &'static str,
    /// Whom it was issued to.
    pub client_id: String,
    /// The same for all pairs that descend from one authorization.
    pub family: usize,
    /// Where it came from.
    pub origin: Origin,
    /// The access token.
    pub access_token: Secret,
    /// The refresh token.
    pub refresh_token: Secret,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// Lifetime of the access token.
    pub expires_in: i64,
    /// When the access token was first accepted.
    pub used_at: Option<UnixSeconds>,
    /// When the refresh token was first spent.
    pub spent_at: Option<UnixSeconds>,
    /// How often the refresh token was presented after it had been spent.
    pub reuses: u32,
    /// The refresh token that this one was last exchanged for.
    pub superseded_by: Option<Fingerprint>,
    /// How often a new access token was issued without a new refresh token.
    pub renewals: u32,
    /// Why the access token is dead before its time.
    pub access_ended: Option<Ended>,
    /// Why the refresh token is dead.
    pub refresh_ended: Option<Ended>,
    parent: Option<usize>,
    refresh_expires_at: Option<UnixSeconds>,
}

impl Entry {
    /// Whether the refresh token would be accepted now.
    #[must_use]
    pub fn refresh_lives(&self, now: UnixSeconds) -> bool {
        self.refresh_ended.is_none() && self.refresh_expires_at.is_none_or(|end| now < end)
    }

    /// Whether the access token would be accepted now.
    #[must_use]
    pub fn access_lives(&self, now: UnixSeconds) -> bool {
        self.access_ended.is_none() && now < self.issued_at.plus(self.expires_in)
    }

    /// The pair as the token endpoint says it.
    #[must_use]
    pub fn grant(&self) -> Grant {
        // Trakt says when it made a pair and for what, MyAnimeList does not.
        let is_mal = self.provider == MAL.name;
        Grant {
            access_token: self.access_token.clone(),
            token_type: Some(if is_mal { "Bearer" } else { "bearer" }.to_owned()),
            expires_in: Some(self.expires_in),
            refresh_token: Some(self.refresh_token.clone()),
            scope: (!is_mal).then(|| "public".to_owned()),
            created_at: (!is_mal).then_some(self.issued_at),
        }
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody issued it.
    Unknown,
    /// It was issued to another client.
    OtherClient,
    /// Its time is over.
    Expired,
    /// It was ended.
    Ended(Ended),
}

/// Everything that the pretend providers know.
#[derive(Clone)]
pub struct Ledger {
    /// The rules, which may change at any time.
    pub rules: Rules,
    /// PINs, authorization codes and device codes.
    pub codes: Codes,
    pub(super) mint: Mint,
    pub(super) last_posts: BTreeMap<(&'static str, String), UnixSeconds>,
    entries: Vec<Entry>,
    next_texts: Option<(Secret, Secret)>,
    /// A refresh gives a new access token only (RFC 6749 section 6 allows that).
    pub(super) keeps_refresh_token: bool,
}

impl Ledger {
    /// A ledger in which nothing was issued yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let mint = Mint::new(rules.seed);
        Self {
            rules,
            codes: Codes::default(),
            mint,
            last_posts: BTreeMap::new(),
            entries: Vec::new(),
            next_texts: None,
            keeps_refresh_token: false,
        }
    }

    /// Every pair, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest pair with that refresh token.
    #[must_use]
    pub fn find(&self, refresh_token: &str) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.refresh_token.expose() == refresh_token)
    }

    /// The newest pair of that client whose refresh token lives.
    #[must_use]
    pub fn live(&self, now: UnixSeconds, provider: &Provider, client_id: &str) -> Option<&Entry> {
        let of_client = |entry: &&Entry| entry.provider == provider.name && entry.client_id == client_id;
        self.entries.iter().rev().filter(of_client).find(|entry| entry.refresh_lives(now))
    }

    /// Whether that refresh token would be accepted.
    #[must_use]
    pub fn is_live(&self, now: UnixSeconds, refresh_token: &str) -> bool {
        self.find(refresh_token).is_some_and(|entry| entry.refresh_lives(now))
    }

    /// How many refresh tokens were spent, and how often spent ones came back.
    #[must_use]
    pub fn spent_and_reused(&self) -> (usize, u32) {
        let spent = self.entries.iter().filter(|entry| entry.spent_at.is_some()).count();
        (spent, self.entries.iter().map(|entry| entry.reuses).sum())
    }

    /// A first pair of a new family, as if made at `issued_at`.
    pub fn issue(&mut self, issued_at: UnixSeconds, provider: &'static Provider, client_id: &str) -> Grant {
        self.add(issued_at, provider.name, client_id, Origin::Given, None).grant()
    }

    /// The texts of the next pair, for tokens that are awkward to write into a file.
    pub fn name_next(&mut self, access_token: &str, refresh_token: &str) {
        self.next_texts = Some((Secret::new(access_token), Secret::new(refresh_token)));
    }

    /// Kills a pair, as a person does who removes the application from an account.
    pub fn revoke(&mut self, token: &str) -> bool {
        let hit = |entry: &&mut Entry| entry.refresh_token.expose() == token || entry.access_token.expose() == token;
        let Some(entry) = self.entries.iter_mut().rev().find(hit) else {
            return false;
        };
        entry.access_ended.get_or_insert(Ended::Revoked);
        entry.refresh_ended.get_or_insert(Ended::Revoked);
        true
    }

    /// Accepts or refuses an access token at the data API.
    pub fn use_access_token(
        &mut self,
        now: UnixSeconds,
        provider: &'static str,
        token: &str,
    ) -> Result<&Entry, Refused> {
        let hit = |entry: &Entry| entry.provider == provider && entry.access_token.expose() == token;
        let at = self.entries.iter().rposition(hit).ok_or(Refused::Unknown)?;
        if let Some(ended) = self.entries[at].access_ended {
            return Err(Refused::Ended(ended));
        }
        if !self.entries[at].access_lives(now) {
            return Err(Refused::Expired);
        }
        self.entries[at].used_at.get_or_insert(now);
        self.end_parent_of(at);
        Ok(&self.entries[at])
    }

    /// Spends a refresh token for the next pair.
    pub(super) fn refresh(
        &mut self,
        now: UnixSeconds,
        provider: &'static str,
        client_id: &str,
        token: &str,
    ) -> Result<Grant, Refused> {
        let hit = |entry: &Entry| entry.provider == provider && entry.refresh_token.expose() == token;
        let at = self.entries.iter().rposition(hit).ok_or(Refused::Unknown)?;
        let entry = &mut self.entries[at];
        if entry.client_id != client_id {
            return Err(Refused::OtherClient);
        }
        if entry.spent_at.is_some() {
            entry.reuses += 1;
            if self.rules.rotation == Rotation::Family {
                let family = entry.family;
                self.end_family(family);
            }
        }
        if let Some(ended) = self.entries[at].refresh_ended {
            return Err(Refused::Ended(ended));
        }
        if !self.entries[at].refresh_lives(now) {
            return Err(Refused::Expired);
        }
        self.end_parent_of(at);
        if self.keeps_refresh_token {
            return Ok(self.renew(now, at));
        }
        let successor = self.add(now, provider, client_id, Origin::Refresh, Some(at));
        let (grant, fingerprint) = (successor.grant(), successor.refresh_token.fingerprint());
        let entry = &mut self.entries[at];
        entry.spent_at.get_or_insert(now);
        entry.superseded_by = Some(fingerprint);
        match self.rules.rotation {
            Rotation::Strict => {
                entry.access_ended.get_or_insert(Ended::Spent);
                entry.refresh_ended = Some(Ended::Spent);
            }
            Rotation::Grace => {}
            Rotation::Family => entry.refresh_ended = Some(Ended::Spent),
        }
        Ok(grant)
    }

    /// A new pair; the child of `parent`, or the first of a new family.
    pub(super) fn add(
        &mut self,
        now: UnixSeconds,
        provider: &'static str,
        client_id: &str,
        origin: Origin,
        parent: Option<usize>,
    ) -> &Entry {
        let (expires_in, access_token) = self.access_token(now, provider, client_id);
        let refresh_token = Secret::new(if provider == MAL.name { self.mint.long_opaque() } else { self.mint.hex(64) });
        let month_s = (provider == MAL.name).then_some(MONTH_S);
        let refresh_expires_at = self.rules.refresh_lifetime_s.or(month_s).map(|seconds| now.plus(seconds));
        let (access_token, refresh_token) = self.next_texts.take().unwrap_or((access_token, refresh_token));
        self.entries.push(Entry {
            provider,
            client_id: client_id.to_owned(),
            family: parent.map_or(self.entries.len(), |at| self.entries[at].family),
            origin,
            access_token,
            refresh_token,
            issued_at: now,
            expires_in,
            used_at: None,
            spent_at: None,
            reuses: 0,
            superseded_by: None,
            renewals: 0,
            access_ended: None,
            refresh_ended: None,
            parent,
            refresh_expires_at,
        });
        &self.entries[self.entries.len() - 1]
    }

    fn renew(&mut self, now: UnixSeconds, at: usize) -> Grant {
        let (provider, client_id) = (self.entries[at].provider, self.entries[at].client_id.clone());
        let (expires_in, access_token) = self.access_token(now, provider, &client_id);
        let entry = &mut self.entries[at];
        entry.access_token = access_token;
        entry.expires_in = expires_in;
        entry.issued_at = now;
        entry.access_ended = None;
        entry.renewals += 1;
        entry.grant()
    }

    fn access_token(&mut self, now: UnixSeconds, provider: &'static str, client_id: &str) -> (i64, Secret) {
        let is_mal = provider == MAL.name;
        let expires_in = self.rules.lifetime_s.unwrap_or(if is_mal { MONTH_S } else { WEEK_S });
        let text = if is_mal { self.mint.jwt(client_id, now, expires_in) } else { self.mint.hex(64) };
        (expires_in, Secret::new(text))
    }

    /// Whoever uses a pair evidently has it, so the one before is needed no more.
    fn end_parent_of(&mut self, at: usize) {
        if let Some(parent) = self.entries[at].parent
            && self.rules.rotation == Rotation::Grace
        {
            self.entries[parent].access_ended.get_or_insert(Ended::Superseded);
            self.entries[parent].refresh_ended.get_or_insert(Ended::Superseded);
        }
    }

    fn end_family(&mut self, family: usize) {
        for entry in self.entries.iter_mut().filter(|entry| entry.family == family) {
            entry.access_ended.get_or_insert(Ended::Reuse);
            entry.refresh_ended.get_or_insert(Ended::Reuse);
        }
    }
}

/// Trakt's lifetime of access tokens in 2026.
const WEEK_S: i64 = 604_800;

/// What `MyAnimeList` grants in practice, for either token.
const MONTH_S: i64 = 2_678_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::TRAKT;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// What is left of the old and the new pair after a rotation, and after the new access token
    /// was used, for each policy.
    #[test]
    fn rotation_table() {
        // (old access, old refresh, new access, new refresh), before and after first use
        let table = [
            (Rotation::Strict, [false, false, true, true], [false, false, true, true]),
            (Rotation::Grace, [true, true, true, true], [false, false, true, true]),
            (Rotation::Family, [true, false, true, true], [true, false, true, true]),
        ];
        for (rotation, before, after) in table {
            let mut ledger = Ledger::new(Rules { rotation, ..Rules::default() });
            let old = ledger.issue(NOW, &TRAKT, "c");
            let new = refresh(&mut ledger, NOW, &old).expect("a grant");
            assert_eq!(lives(&ledger, NOW), before, "{rotation:?} before use");
            let used = ledger.use_access_token(NOW, "trakt", new.access_token.expose()).is_ok();
            assert!(used, "{rotation:?}");
            assert_eq!(lives(&ledger, NOW), after, "{rotation:?} after use");
            let entries = ledger.entries();
            assert_eq!(entries[0].spent_at, Some(NOW));
            assert_eq!(entries[0].superseded_by, Some(entries[1].refresh_token.fingerprint()));
            assert_eq!((entries[0].family, entries[1].family), (0, 0));
        }
    }

    /// What presenting a spent token does, for each policy.
    #[test]
    fn reuse_table() {
        let table = [
            (Rotation::Strict, Some(Refused::Ended(Ended::Spent)), [false, false, true, true]),
            // The old one still works: a lost answer costs nothing here.
            (Rotation::Grace, None, [true, true, true, true]),
            (Rotation::Family, Some(Refused::Ended(Ended::Spent)), [false, false, false, false]),
        ];
        for (rotation, refused, left) in table {
            let mut ledger = Ledger::new(Rules { rotation, ..Rules::default() });
            let old = ledger.issue(NOW, &TRAKT, "c");
            let other = ledger.issue(NOW, &TRAKT, "c");
            refresh(&mut ledger, NOW, &old).expect("a grant");
            assert_eq!(refresh(&mut ledger, NOW, &old).err(), refused, "{rotation:?}");
            let e = ledger.entries();
            let lives =
                [e[0].access_lives(NOW), e[0].refresh_lives(NOW), e[2].access_lives(NOW), e[2].refresh_lives(NOW)];
            assert_eq!(lives, left, "{rotation:?}");
            assert_eq!(ledger.spent_and_reused(), (1, 1), "{rotation:?}");
            let other = other.refresh_token.expect("a refresh token");
            assert!(ledger.is_live(NOW, other.expose()), "another family is not touched");
        }
    }

    /// Under grace, the next refresh counts as use of the new pair; then the oldest token is dead.
    #[test]
    fn grace_ends_with_the_next_refresh() {
        let mut ledger = Ledger::new(Rules { rotation: Rotation::Grace, ..Rules::default() });
        let first = ledger.issue(NOW, &TRAKT, "c");
        let second = refresh(&mut ledger, NOW, &first).expect("a grant");
        refresh(&mut ledger, NOW.plus(1), &second).expect("a grant");
        assert_eq!(refresh(&mut ledger, NOW.plus(2), &first).err(), Some(Refused::Ended(Ended::Superseded)));
        assert!(refresh(&mut ledger, NOW.plus(2), &second).is_ok());
    }

    /// Tokens end with their time, belong to one client, and are refused with the reason.
    #[test]
    fn refusals() {
        let rules = Rules { lifetime_s: Some(20), refresh_lifetime_s: Some(60), ..Rules::default() };
        let mut ledger = Ledger::new(rules);
        let grant = ledger.issue(NOW, &TRAKT, "c");
        let (access, token) = (grant.access_token.clone(), grant.refresh_token.clone().expect("a refresh token"));
        assert_eq!(ledger.refresh(NOW, "trakt", "d", token.expose()).err(), Some(Refused::OtherClient));
        assert_eq!(ledger.refresh(NOW, "mal", "c", token.expose()).err(), Some(Refused::Unknown));
        assert_eq!(ledger.use_access_token(NOW, "mal", access.expose()).err(), Some(Refused::Unknown));
        let mut at = |seconds| ledger.use_access_token(NOW.plus(seconds), "trakt", access.expose()).err();
        assert_eq!((at(0), at(19), at(20)), (None, None, Some(Refused::Expired)));
        assert_eq!(ledger.refresh(NOW.plus(60), "trakt", "c", token.expose()).err(), Some(Refused::Expired));
        assert!(ledger.live(NOW.plus(59), &TRAKT, "c").is_some());
        assert!(ledger.live(NOW.plus(60), &TRAKT, "c").is_none());
        assert!(ledger.revoke(access.expose()) && !ledger.revoke("nothing"));
        let dead = ledger.refresh(NOW, "trakt", "c", token.expose()).err();
        assert_eq!(dead, Some(Refused::Ended(Ended::Revoked)));
    }

    /// Where the rules say nothing, the lifetimes are the providers' own.
    #[test]
    fn lifetimes_of_the_providers() {
        let mut ledger = Ledger::new(Rules::default());
        for (provider, expires_in, month, outlives_it) in
            [(&TRAKT, 604_800, 2_678_400, true), (&MAL, 2_678_400, 2_678_400, false)]
        {
            let grant = ledger.issue(NOW, provider, "c");
            assert_eq!(grant.expires_in, Some(expires_in), "{}", provider.name);
            assert!(ledger.live(NOW.plus(month - 1), provider, "c").is_some(), "{}", provider.name);
            assert_eq!(ledger.live(NOW.plus(month), provider, "c").is_some(), outlives_it, "{}", provider.name);
        }
    }

    /// A renewal keeps the refresh token alive and spends nothing; named texts are used once.
    #[test]
    fn renewal_and_named_texts() {
        let mut ledger = Ledger::new(Rules::default());
        ledger.name_next("1234567890", "true");
        let grant = ledger.issue(NOW, &TRAKT, "c");
        assert_eq!(grant.access_token.expose(), "1234567890");
        ledger.keeps_refresh_token = true;
        let renewed = refresh(&mut ledger, NOW.plus(9), &grant).expect("a grant");
        assert!(renewed.refresh_token == grant.refresh_token && renewed.access_token != grant.access_token);
        assert_eq!((ledger.entries().len(), ledger.entries()[0].renewals), (1, 1));
        assert_eq!(ledger.spent_and_reused(), (0, 0));
        assert!(ledger.is_live(NOW, "true"));
    }

    fn refresh(ledger: &mut Ledger, now: UnixSeconds, grant: &Grant) -> Result<Grant, Refused> {
        let token = grant.refresh_token.as_ref().expect("a refresh token");
        ledger.refresh(now, "trakt", "c", token.expose())
    }

    fn lives(ledger: &Ledger, now: UnixSeconds) -> [bool; 4] {
        let [old, new] = ledger.entries() else { panic!("two pairs") };
        [old.access_lives(now), old.refresh_lives(now), new.access_lives(now), new.refresh_lives(now)]
    }
}
