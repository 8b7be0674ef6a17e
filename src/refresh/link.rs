//! The link that a person opens, and the address that the browser ends on
//! (RFC 6749 section 4.1, RFC 7636 with method `plain`).
//!
//! Pure.

use super::request::Endpoint;
use crate::provider::Login;
use crate::token::Secret;

/// The authorization endpoint's address for a client and a verifier, which with method `plain` is its
/// own challenge; none for a provider without that flow.
#[must_use]
pub fn authorize_url(endpoint: &Endpoint, client_id: &Secret, verifier: &Secret) -> Option<String> {
    let Login::PastedUrl { authorize_path } = endpoint.provider.login else { return None };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("response_type", "code").append_pair("client_id", client_id.expose());
    query.append_pair("code_challenge", verifier.expose()).append_pair("code_challenge_method", "plain");
    Some(format!("{}{authorize_path}?{}", endpoint.auth_url, query.finish()))
}

/// The code in a pasted address; what is no address is taken for the code itself.
#[must_use]
pub fn code_in(pasted: &Secret) -> Option<Secret> {
    let text = pasted.expose().trim();
    let query = match text.split_once('?') {
        Some((_, query)) => query.split('#').next().unwrap_or_default(),
        None if text.contains("code=") => text,
        None if text.contains([':', '/', ' ']) => return None,
        None => return Some(Secret::new(text)).filter(|code| !code.expose().is_empty()),
    };
    let code = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "code")?.1;
    (!code.is_empty()).then(|| Secret::new(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::MAL;

    /// The code is found in whatever part of the address was pasted.
    #[test]
    fn pasted() {
        for (text, expected) in [
            ("http://localhost/?code=abc", Some("abc")),
            ("http://localhost/?code=a%2Bb&state=x", Some("a+b")),
            (" http://localhost/?state=x&code=abc#top ", Some("abc")),
            ("code=abc&state=x", Some("abc")),
            ("abc", Some("abc")),
            ("http://localhost/?error=access_denied", None),
            ("http://localhost/?code=", None),
            ("http://localhost/", None),
            ("", None),
        ] {
            let found = code_in(&Secret::new(text));
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{text}");
        }
    }

    /// Method `plain`: the challenge is the verifier.
    #[test]
    fn link() {
        let endpoint = Endpoint { provider: &MAL, auth_url: MAL.auth_url.to_owned(), redirect_uri: None };
        let link = authorize_url(&endpoint, &Secret::new("i&d"), &Secret::new("v"));
        assert_eq!(
            link.as_deref(),
            Some(
                "https://myanimelist.net/v1/oauth2/authorize?response_type=code&client_id=i%26d&code_challenge=v&code_challenge_method=plain"
            )
        );
    }
}
