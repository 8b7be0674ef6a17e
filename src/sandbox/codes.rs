//! What is exchanged once for a first pair: PINs, authorization codes, device codes.
//!
//! Invariant: each works once, for its client, in its time, and says which of these failed.
//! Time is an argument. This file never does IO and never reads a clock.

use super::ledger::{Ledger, Origin};
use crate::token::{Grant, Secret, UnixSeconds};

/// Every code ever made, oldest first.
#[derive(Clone, Default)]
pub struct Codes {
    /// PINs and authorization codes.
    pub once: Vec<OnceCode>,
    /// Device codes.
    pub devices: Vec<Device>,
}

/// A PIN of Trakt or an authorization code of `MyAnimeList`.
#[derive(Clone)]
pub struct OnceCode {
    /// The provider's key in `config.yml`.
    pub provider: &'static str,
    /// The code.
    pub code: Secret,
    /// Whom it was made for; none means anyone.
    pub client_id: Option<String>,
    /// The challenge that its redeemer has to know (RFC 7636, method `plain`).
    pub challenge: Option<Secret>,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// When its time is over.
    pub expires_at: UnixSeconds,
    /// When it was redeemed.
    pub redeemed_at: Option<UnixSeconds>,
    /// How often it was presented and refused.
    pub refusals: u32,
}

/// A device code and its user code (RFC 8628).
#[derive(Clone)]
pub struct Device {
    /// What the client polls with.
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Whom it was made for.
    pub client_id: String,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// When its time is over.
    pub expires_at: UnixSeconds,
    /// What the person said.
    pub decision: Option<Decision>,
    /// When it was redeemed.
    pub redeemed_at: Option<UnixSeconds>,
    /// When it was last polled for.
    pub polled_at: Option<UnixSeconds>,
    /// How often it was polled for.
    pub polls: u32,
    /// How many of these polls came too early.
    pub early_polls: u32,
}

/// What a person says to a user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it in.
    Approved,
    /// Keep it out.
    Denied,
}

/// Why a PIN or an authorization code was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRefused {
    /// Nobody made it, or it was made for another client.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was redeemed before.
    Used,
    /// The verifier is not the challenge.
    WrongVerifier,
}

/// The answer to a poll that brings no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nobody said anything yet.
    Pending,
    /// Nobody made such a code for this client.
    Unknown,
    /// It was redeemed before.
    Used,
    /// Its time is over.
    Expired,
    /// The person said no.
    Denied,
    /// The interval was not waited for.
    SlowDown,
}

impl Poll {
    /// The status that Trakt's documentation gives to it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Pending => 400,
            Self::Unknown => 404,
            Self::Used => 409,
            Self::Expired => 410,
            Self::Denied => 418,
            Self::SlowDown => 429,
        }
    }
}

impl Ledger {
    /// A PIN, as Trakt's page shows it to a person.
    pub fn issue_pin(&mut self, now: UnixSeconds) -> Secret {
        let code = Secret::new(self.mint.short_code());
        self.add_once(now, "trakt", code, None, None)
    }

    /// An authorization code for whoever knows the challenge, as `MyAnimeList` sends it to a browser.
    pub fn issue_code(&mut self, now: UnixSeconds, client_id: &str, challenge: &str) -> Secret {
        let code = Secret::new(self.mint.long_opaque());
        self.add_once(now, "mal", code, Some(client_id.to_owned()), Some(Secret::new(challenge)))
    }

    /// Exchanges a PIN or an authorization code for a first pair.
    pub(super) fn redeem(
        &mut self,
        now: UnixSeconds,
        provider: &'static str,
        client_id: &str,
        code: &str,
        verifier: Option<&str>,
    ) -> Result<Grant, CodeRefused> {
        let hit = |once: &&mut OnceCode| {
            let is_for = once.client_id.as_deref().is_none_or(|id| id == client_id);
            once.provider == provider && once.code.expose() == code && is_for
        };
        let once = self.codes.once.iter_mut().rev().find(hit).ok_or(CodeRefused::Unknown)?;
        let refused = if once.redeemed_at.is_some() {
            Some(CodeRefused::Used)
        } else if now >= once.expires_at {
            Some(CodeRefused::Expired)
        } else if once.challenge.as_ref().is_some_and(|challenge| verifier != Some(challenge.expose())) {
            Some(CodeRefused::WrongVerifier)
        } else {
            None
        };
        if let Some(refused) = refused {
            once.refusals += 1;
            return Err(refused);
        }
        once.redeemed_at = Some(now);
        Ok(self.add(now, provider, client_id, Origin::Code, None).grant())
    }

    /// A device code for a client.
    pub fn issue_device(&mut self, now: UnixSeconds, client_id: &str) -> &Device {
        let device = Device {
            device_code: Secret::new(self.mint.hex(64)),
            user_code: self.mint.short_code(),
            client_id: client_id.to_owned(),
            issued_at: now,
            expires_at: now.plus(self.rules.device_lifetime_s),
            decision: None,
            redeemed_at: None,
            polled_at: None,
            polls: 0,
            early_polls: 0,
        };
        self.codes.devices.push(device);
        &self.codes.devices[self.codes.devices.len() - 1]
    }

    /// What the person says to a user code; false if there is no such code.
    pub fn decide_device(&mut self, user_code: &str, decision: Decision) -> bool {
        let hit = |device: &&mut Device| device.user_code.eq_ignore_ascii_case(user_code.trim());
        let found = self.codes.devices.iter_mut().rev().find(hit);
        found.map(|device| device.decision = Some(decision)).is_some()
    }

    /// A client asks whether the person has said yes.
    pub(super) fn poll_device(&mut self, now: UnixSeconds, client_id: &str, device_code: &str) -> Result<Grant, Poll> {
        let interval_s = self.rules.device_interval_s;
        let hit = |d: &&mut Device| d.device_code.expose() == device_code && d.client_id == client_id;
        let device = self.codes.devices.iter_mut().rev().find(hit).ok_or(Poll::Unknown)?;
        let is_early = device.polled_at.is_some_and(|last| now.since(last) < interval_s);
        device.polled_at = Some(now);
        device.polls += 1;
        if device.redeemed_at.is_some() {
            return Err(Poll::Used);
        }
        if now >= device.expires_at {
            return Err(Poll::Expired);
        }
        if device.decision == Some(Decision::Denied) {
            return Err(Poll::Denied);
        }
        if is_early {
            device.early_polls += 1;
            return Err(Poll::SlowDown);
        }
        if device.decision.is_none() {
            return Err(Poll::Pending);
        }
        device.redeemed_at = Some(now);
        Ok(self.add(now, "trakt", client_id, Origin::Device, None).grant())
    }

    fn add_once(
        &mut self,
        now: UnixSeconds,
        provider: &'static str,
        code: Secret,
        client_id: Option<String>,
        challenge: Option<Secret>,
    ) -> Secret {
        self.codes.once.push(OnceCode {
            provider,
            code: code.clone(),
            client_id,
            challenge,
            issued_at: now,
            expires_at: now.plus(self.rules.code_lifetime_s),
            redeemed_at: None,
            refusals: 0,
        });
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::rules::Rules;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// A PIN works once, for ten minutes, and every refusal is counted.
    #[test]
    fn pins() {
        let mut ledger = Ledger::new(Rules::default());
        let (first, second) = (ledger.issue_pin(NOW), ledger.issue_pin(NOW));
        let mut redeem = |pin: &str, after_s| ledger.redeem(NOW.plus(after_s), "trakt", "c", pin, None).err();
        assert_eq!(redeem("00000000", 0), Some(CodeRefused::Unknown));
        assert_eq!(redeem(first.expose(), 599), None);
        assert_eq!(redeem(first.expose(), 599), Some(CodeRefused::Used));
        assert_eq!(redeem(second.expose(), 600), Some(CodeRefused::Expired));
        assert_eq!(ledger.codes.once.iter().map(|once| once.refusals).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(ledger.entries().len(), 1);
    }

    /// An authorization code wants its client, its provider and the verifier that was registered.
    #[test]
    fn authorization_codes() {
        let mut ledger = Ledger::new(Rules::default());
        let code = ledger.issue_code(NOW, "c", "the-challenge");
        let mut redeem =
            |provider, client, verifier| ledger.redeem(NOW, provider, client, code.expose(), verifier).err();
        assert_eq!(redeem("trakt", "c", Some("the-challenge")), Some(CodeRefused::Unknown));
        assert_eq!(redeem("mal", "d", Some("the-challenge")), Some(CodeRefused::Unknown));
        assert_eq!(redeem("mal", "c", Some("another")), Some(CodeRefused::WrongVerifier));
        assert_eq!(redeem("mal", "c", None), Some(CodeRefused::WrongVerifier));
        assert_eq!(redeem("mal", "c", Some("the-challenge")), None);
        assert_eq!(redeem("mal", "c", Some("the-challenge")), Some(CodeRefused::Used));
    }

    /// Every answer of the device flow: what the person said and when it is polled, against the status.
    #[test]
    fn device_table() {
        let mut ledger = Ledger::new(Rules::default());
        let mut device = |decision| {
            let device = ledger.issue_device(NOW, "c");
            let (device_code, user_code) = (device.device_code.clone(), device.user_code.clone());
            if let Some(decision) = decision {
                assert!(ledger.decide_device(&user_code.to_lowercase(), decision));
            }
            device_code
        };
        let (yes, no, silent) = (device(Some(Decision::Approved)), device(Some(Decision::Denied)), device(None));
        let mut poll = |code: &Secret, after_s| {
            ledger.poll_device(NOW.plus(after_s), "c", code.expose()).map_or_else(Poll::status, |_| 200)
        };
        assert_eq!([poll(&silent, 0), poll(&silent, 4), poll(&silent, 9)], [400, 429, 400]);
        assert_eq!([poll(&silent, 599), poll(&silent, 600)], [400, 410]);
        assert_eq!([poll(&yes, 5), poll(&yes, 10)], [200, 409]);
        assert_eq!([poll(&no, 5), poll(&no, 10)], [418, 418]);
        assert_eq!(poll(&Secret::new("nothing"), 0), 404);
        assert_eq!(ledger.poll_device(NOW, "d", yes.expose()).err(), Some(Poll::Unknown));
        assert!(!ledger.decide_device("nothing", Decision::Approved));
        assert_eq!((ledger.codes.devices[2].polls, ledger.codes.devices[2].early_polls), (5, 1));
    }
}
