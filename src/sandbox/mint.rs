//! Makes the texts of tokens, codes and PINs in the shapes that the providers use.
//!
//! Invariant: the same seed makes the same texts in the same order, so that a
//! run can be repeated to the byte. They are worth nothing anywhere else. This
//! file never does IO and never draws from a real random source.

use crate::token::UnixSeconds;
use ring::digest::{SHA256, digest};
use serde_json::json;

/// Where texts come from.
#[derive(Clone, Debug)]
pub struct Mint {
    seed: u64,
    drawn: u64,
}

impl Mint {
    /// A mint that has made nothing yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// That many hexadecimal digits: Trakt's tokens are 64 of them.
    pub fn hex(&mut self, digits: usize) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let bytes = self.bytes(digits.div_ceil(2));
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).take(digits).collect()
    }

    /// Eight upper-case hexadecimal digits, as Trakt's PINs and user codes are. Some of them
    /// look like numbers to a YAML parser, which is as it should be.
    pub fn short_code(&mut self) -> String {
        self.hex(8).to_ascii_uppercase()
    }

    /// An opaque text as `MyAnimeList` makes its codes and refresh tokens: several hundred characters.
    pub fn long_opaque(&mut self) -> String {
        format!("def50200{}", self.hex(640))
    }

    /// A JWT (RFC 7519) of about 1000 characters with `iat` and `exp`, as `MyAnimeList`'s access
    /// tokens are. Nothing signs it: clients of a provider cannot verify it anyhow.
    pub fn jwt(&mut self, client_id: &str, issued_at: UnixSeconds, expires_in: i64) -> String {
        let id = self.hex(80);
        let header = json!({"typ": "JWT", "alg": "RS256", "jti": id});
        let claims = json!({
            "aud": client_id, "jti": id, "iat": issued_at.0, "nbf": issued_at.0,
            "exp": issued_at.plus(expires_in).0, "sub": "1", "scopes": [],
        });
        let signature = base64url(&self.bytes(384));
        format!("{}.{}.{signature}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.drawn += 1;
        let blocks = 0..u64::try_from(count.div_ceil(32)).unwrap_or(u64::MAX);
        let mut bytes: Vec<u8> = blocks
            .flat_map(|block| {
                let input: Vec<u8> = [self.seed, self.drawn, block].iter().flat_map(|n| n.to_be_bytes()).collect();
                digest(&SHA256, &input).as_ref().to_vec()
            })
            .collect();
        bytes.truncate(count);
        bytes
    }
}

/// Base64 in the URL-safe alphabet without padding (RFC 4648 section 5), as JWTs want it.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = (0..3).fold(0_usize, |group, at| group << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..=three.len() {
            text.push(char::from(ALPHABET[group >> (18 - 6 * at) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648 section 10, without their padding.
    #[test]
    fn base64_vectors() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(base64url(plain.as_bytes()), encoded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    /// The shapes are the providers', nothing repeats within a run, and a seed repeats a run.
    #[test]
    fn shapes() {
        let (mut mint, mut twin) = (Mint::new(7), Mint::new(7));
        assert_eq!(mint.hex(64).len(), 64);
        assert_eq!(mint.short_code().len(), 8);
        let jwt = mint.jwt("client", UnixSeconds(1_700_000_000), 3600);
        assert!((900..1200).contains(&jwt.len()), "{}", jwt.len());
        assert_eq!(jwt.split('.').count(), 3);
        let long = mint.long_opaque();
        assert_eq!(long.len(), 648);
        assert_ne!(long, mint.long_opaque());
        twin.hex(64);
        twin.short_code();
        assert_eq!(twin.jwt("client", UnixSeconds(1_700_000_000), 3600), jwt);
    }
}
