//! One exchange with a token endpoint.
//!
//! Invariant: [`exchange`] cannot be called without a [`Reservation`], so no
//! token is spent whose successor could not be kept; and it sends one request,
//! never a second. This file never decides whether to try again.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

use crate::store::Reservation;
use crate::token::Secret;

pub mod device;
pub mod link;
pub mod reply;
pub mod request;
mod roots;

use reply::Answer;
use request::Request;

/// Longer answers are not read: a grant has 2.5 KB at most.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// A connection that takes longer would not carry an answer either.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Trakt has answered after twenty seconds on bad days.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Whose account it is, is nice to know and not worth waiting for.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Trakt's front blocks requests without one.
const USER_AGENT: &str = concat!("kometa-authd/", env!("CARGO_PKG_VERSION"));

/// How a request ended.
pub enum Outcome {
    /// It never left: nothing can have been spent.
    NotSent(String),
    /// It was sent, and no whole answer came: it may have been acted on.
    Unknown(String),
    /// It was answered.
    Answered(Answer),
}

/// The way to the providers.
pub trait Network {
    /// Sends one POST and waits for its whole answer.
    fn post(&self, request: &Request) -> impl Future<Output = Outcome>;
    /// Asks a data API something with an access token. Nothing depends on the answer, so whoever has
    /// no way to ask needs none.
    fn ask(&self, _question: &Question) -> impl Future<Output = Outcome> {
        async { Outcome::NotSent("there is no way to ask".to_owned()) }
    }
}

/// A GET with an access token.
pub struct Question {
    /// The address.
    pub url: String,
    /// The access token.
    pub token: Secret,
    /// The application's id, which Trakt's API wants beside it.
    pub client_id: Secret,
}

/// Sends the request that spends what `reservation` was made for.
pub async fn exchange<N: Network, H>(network: &N, request: &Request, _reservation: &Reservation<H>) -> Outcome {
    network.post(request).await
}

/// HTTPS as the options want it.
#[derive(Clone, Debug, Default)]
pub struct Https {
    /// Certificates to trust in the place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Network for Https {
    async fn post(&self, request: &Request) -> Outcome {
        let client = match self.client(&request.url) {
            Ok(client) => client,
            Err(why) => return Outcome::NotSent(why),
        };
        if let Err(error) = crate::disk::faults::point("post") {
            return Outcome::NotSent(error.to_string());
        }
        let sent = client
            .post(&request.url)
            .header("content-type", request.content_type)
            .header("accept", "application/json")
            .body(request.body.expose().to_owned())
            .send()
            .await;
        if let Err(error) = crate::disk::faults::point("answer") {
            return Outcome::Unknown(error.to_string());
        }
        match sent {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() || error.is_builder() => Outcome::NotSent(cause(&error)),
            Err(error) if error.is_timeout() => {
                Outcome::Unknown(format!("no answer within {} seconds", TOTAL_TIMEOUT.as_secs()))
            }
            Err(error) => Outcome::Unknown(cause(&error)),
        }
    }

    async fn ask(&self, question: &Question) -> Outcome {
        self.get(question).await.map_or_else(Outcome::Unknown, Outcome::Answered)
    }
}

impl Https {
    /// Asks a data API; no fault points here, because nothing is spent.
    async fn get(&self, question: &Question) -> Result<Answer, String> {
        let client = self.client(&question.url)?;
        let sent = client
            .get(&question.url)
            .header("authorization", format!("Bearer {}", question.token.expose()))
            .header("trakt-api-version", "2")
            .header("trakt-api-key", question.client_id.expose())
            .header("accept", "application/json")
            .timeout(QUESTION_TIMEOUT)
            .send()
            .await;
        match read(sent.map_err(|error| cause(&error))?).await {
            Outcome::Answered(answer) => Ok(answer),
            Outcome::NotSent(why) | Outcome::Unknown(why) => Err(why),
        }
    }

    /// Looks whether the named certificates can be used, before anything depends on them.
    ///
    /// # Errors
    /// They cannot; the sentence says why.
    pub fn check(&self) -> Result<(), String> {
        self.ca_file.as_ref().map_or(Ok(()), |path| roots::find(Some(path)).map(drop))
    }

    /// A client for one request: built in microseconds, and gone with its memory afterwards.
    fn client(&self, url: &str) -> Result<reqwest::Client, String> {
        self.client_for(url, is_loopback(url))
    }

    /// The same for an address that is known to be near, or not: what is near may be spoken to without TLS,
    /// and never through a proxy.
    pub(crate) fn client_for(&self, url: &str, is_near: bool) -> Result<reqwest::Client, String> {
        let is_plain = url.starts_with("http://");
        let roots = if is_plain { RootCertStore::empty() } else { roots::find(self.ca_file.as_deref())? };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(roots)?)
            .https_only(!is_near)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT);
        if is_near {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| cause(&error))
    }
}

/// Whether an address may be given to a person or a token: `https`, or plain `http` that does not leave this machine.
#[must_use]
pub fn is_secure(url: &str) -> bool {
    url.starts_with("https://") || (url.starts_with("http://") && is_loopback(url))
}

/// Whether an address is one of this machine.
fn is_loopback(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    })
}

fn client_config(roots: RootCertStore) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reads an answer to its end. A body that breaks off may have held a grant.
async fn read(mut response: reqwest::Response) -> Outcome {
    let status = response.status().as_u16();
    let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after_s = wait.and_then(|text| reply::retry_after_s(text, crate::clock::now()));
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_MAX_BYTES => {
                return Outcome::Unknown(format!("an answer of more than {} KiB", BODY_MAX_BYTES / 1024));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Outcome::Answered(Answer { status, retry_after_s, body }),
            Err(error) => return Outcome::Unknown(format!("the answer broke off: {}", cause(&error))),
        }
    }
}

/// The innermost cause of an error, which is what a person can act on; never an address with a query.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut deepest: Option<&dyn std::error::Error> = None;
    while let Some(source) = deepest.map_or_else(|| std::error::Error::source(error), std::error::Error::source) {
        deepest = Some(source);
    }
    match deepest.map(|source| (source, source.downcast_ref::<io::Error>().map(io::Error::kind))) {
        Some((_, Some(io::ErrorKind::ConnectionRefused))) => "connection refused".to_owned(),
        Some((_, Some(io::ErrorKind::ConnectionReset))) => "connection reset".to_owned(),
        Some((source, _)) => source.to_string(),
        None if error.is_timeout() => "timed out".to_owned(),
        None => "the request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only addresses of this machine may be spoken to without TLS, and none in another way.
    #[test]
    fn secure() {
        for (url, is_near, expected) in [
            ("http://127.0.0.1:8080", true, true),
            ("http://[::1]/x", true, true),
            ("http://localhost:1", true, true),
            ("https://localhost:1", true, true),
            ("http://localhost.example.org", false, false),
            ("http://10.0.0.1", false, false),
            ("https://auth.trakt.tv", false, true),
            ("ftp://127.0.0.1/x", true, false),
            ("htt0shttp://127.0.0.1/x", true, false),
            ("nonsense", false, false),
        ] {
            assert_eq!((is_loopback(url), is_secure(url)), (is_near, expected), "{url}");
        }
    }
}
