//! The requests that a token endpoint gets (RFC 6749 sections 4.1.3 and 6).
//!
//! Pure. The body is a [`Secret`], so that no log line can hold it.

use serde_json::{Map, Value};

use crate::provider::{Encoding, Provider};
use crate::token::Secret;

/// Where a provider is, as the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The provider's row.
    pub provider: &'static Provider,
    /// The origin of its OAuth endpoints, without a slash at its end.
    pub auth_url: String,
    /// The `redirect_uri` that the application was registered with.
    pub redirect_uri: Option<String>,
}

/// The application's credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `client_id`
    pub client_id: Secret,
    /// `client_secret`: applications made since October 2026 have none.
    pub client_secret: Option<Secret>,
}

/// What is traded for a grant.
#[derive(Clone, Copy)]
pub enum Offer<'a> {
    /// A refresh token.
    RefreshToken(&'a Secret),
    /// An authorization code or PIN, with the PKCE verifier that it was asked for with (RFC 7636).
    Code {
        /// The code.
        code: &'a Secret,
        /// The verifier, where one was used.
        verifier: Option<&'a Secret>,
    },
}

impl Offer<'_> {
    /// The thing that is spent.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        match self {
            Self::RefreshToken(token) => token,
            Self::Code { code, .. } => code,
        }
    }
}

/// A POST, ready to be sent.
pub struct Request {
    /// The address.
    pub url: String,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub body: Secret,
}

/// The request that trades an offer for a grant.
#[must_use]
pub fn token_request(endpoint: &Endpoint, credentials: &Credentials, offer: &Offer) -> Request {
    let mut fields = match offer {
        Offer::RefreshToken(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())],
        Offer::Code { code, verifier } => {
            let mut fields = vec![("grant_type", "authorization_code"), ("code", code.expose())];
            fields.extend(verifier.map(|verifier| ("code_verifier", verifier.expose())));
            fields
        }
    };
    fields.push(("client_id", credentials.client_id.expose()));
    fields.extend(credentials.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    fields.extend(endpoint.redirect_uri.as_deref().map(|uri| ("redirect_uri", uri)));
    encode(endpoint, endpoint.provider.token_path, &fields)
}

/// The request that ends a token's life (RFC 7009); none where the provider has no endpoint for it.
#[must_use]
pub fn revoke_request(endpoint: &Endpoint, credentials: &Credentials, token: &Secret) -> Option<Request> {
    let mut fields = vec![("token", token.expose()), ("client_id", credentials.client_id.expose())];
    fields.extend(credentials.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    Some(encode(endpoint, endpoint.provider.revoke_path?, &fields))
}

pub(super) fn encode(endpoint: &Endpoint, path: &str, fields: &[(&str, &str)]) -> Request {
    let url = format!("{}{path}", endpoint.auth_url);
    match endpoint.provider.encoding {
        Encoding::Json => {
            let object: Map<String, Value> =
                fields.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
            Request { url, content_type: "application/json", body: Secret::new(Value::Object(object).to_string()) }
        }
        Encoding::Form => {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            Request { url, content_type: "application/x-www-form-urlencoded", body: Secret::new(body) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{MAL, TRAKT};

    fn endpoint(provider: &'static Provider) -> Endpoint {
        Endpoint {
            provider,
            auth_url: provider.auth_url.to_owned(),
            redirect_uri: provider.redirect_uri.map(str::to_owned),
        }
    }

    /// Trakt's refresh is JSON, with the redirect URI, and works without a client secret.
    #[test]
    fn trakt_refresh() {
        let token = Secret::new("old");
        let credentials =
            |secret: Option<&str>| Credentials { client_id: Secret::new("id"), client_secret: secret.map(Secret::new) };
        let request = token_request(&endpoint(&TRAKT), &credentials(Some("s\"x")), &Offer::RefreshToken(&token));
        assert_eq!(request.url, "https://auth.trakt.tv/oauth/token");
        let body: Value = serde_json::from_str(request.body.expose()).unwrap();
        let expected = serde_json::json!({
            "refresh_token": "old", "client_id": "id", "client_secret": "s\"x",
            "redirect_uri": "urn:ietf:wg:oauth:2.0:oob", "grant_type": "refresh_token",
        });
        assert_eq!(body, expected);
        let request = token_request(&endpoint(&TRAKT), &credentials(None), &Offer::RefreshToken(&token));
        assert!(!request.body.expose().contains("client_secret"));
    }

    /// `MyAnimeList` takes forms, and a code comes with its verifier.
    #[test]
    fn mal_code() {
        let (code, verifier) = (Secret::new("a&b"), Secret::new("v"));
        let credentials = Credentials { client_id: Secret::new("id"), client_secret: Some(Secret::new("s")) };
        let request =
            token_request(&endpoint(&MAL), &credentials, &Offer::Code { code: &code, verifier: Some(&verifier) });
        assert_eq!(request.url, "https://myanimelist.net/v1/oauth2/token");
        assert_eq!(
            request.body.expose(),
            "grant_type=authorization_code&code=a%26b&code_verifier=v&client_id=id&client_secret=s"
        );
    }
}
