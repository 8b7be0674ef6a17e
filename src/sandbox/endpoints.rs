//! What the two providers answer at each of their addresses.
//!
//! Invariant: a request that a real provider would refuse is refused here, so that a client which
//! passes against the sandbox is right about encodings, methods and credentials. The paths are
//! written out once more instead of being taken from [`crate::provider`], so that a slip there
//! shows. This file never does IO and never reads a clock.

use super::codes::CodeRefused;
use super::ledger::{Ledger, Refused};
use super::message::{Params, Reply, Request, escape};
use super::rules::{Client, DeadAnswer};
use crate::token::{Grant, UnixSeconds};
use serde_json::{Value, json};

/// An address that a provider answers at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Trakt's token endpoint.
    TraktToken,
    /// Where Trakt makes device codes.
    DeviceCode,
    /// Where Trakt is polled for the pair of a device code.
    DeviceToken,
    /// Trakt's revocation endpoint.
    Revoke,
    /// `MyAnimeList`'s token endpoint.
    MalToken,
    /// `MyAnimeList`'s authorization endpoint.
    Authorize,
    /// The data API of either, as far as it says whose account it is.
    Data,
    /// Anything else.
    Nowhere,
}

impl Endpoint {
    /// Every endpoint, with the name that faults use.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::TraktToken, "trakt.token"),
        (Self::DeviceCode, "device-code"),
        (Self::DeviceToken, "device-token"),
        (Self::Revoke, "revoke"),
        (Self::MalToken, "mal.token"),
        (Self::Authorize, "authorize"),
        (Self::Data, "data"),
        (Self::Nowhere, "elsewhere"),
    ];

    /// The endpoint at a path.
    #[must_use]
    pub fn at(path: &str) -> Self {
        match path {
            "/oauth/token" => Self::TraktToken,
            "/oauth/device/code" => Self::DeviceCode,
            "/oauth/device/token" => Self::DeviceToken,
            "/oauth/revoke" => Self::Revoke,
            "/v1/oauth2/token" => Self::MalToken,
            "/v1/oauth2/authorize" => Self::Authorize,
            "/users/settings" | "/v2/users/@me" => Self::Data,
            _ => Self::Nowhere,
        }
    }

    const fn provider(self) -> &'static str {
        if matches!(self, Self::MalToken | Self::Authorize) { "mal" } else { "trakt" }
    }

    const fn method(self) -> &'static str {
        if matches!(self, Self::Authorize | Self::Data) { "GET" } else { "POST" }
    }
}

impl Ledger {
    /// The answer of the provider whose address it is.
    pub fn handle(&mut self, now: UnixSeconds, request: &Request) -> Reply {
        let endpoint = Endpoint::at(request.path());
        if request.header("user-agent").is_none_or(|agent| agent.trim().is_empty()) {
            return Reply::html(403, "Attention Required! | Cloudflare", "Sorry, you have been blocked");
        }
        if endpoint == Endpoint::Nowhere {
            return Reply::html(404, "Not Found", "The page you were looking for doesn't exist.");
        }
        if request.method != endpoint.method() {
            return Reply::html(405, "Method Not Allowed", "").with("allow", endpoint.method());
        }
        match endpoint {
            Endpoint::Authorize => self.authorize(now, request),
            Endpoint::Data => self.whose_account(now, request),
            _ => self.post(now, endpoint, request).unwrap_or_else(|refusal| refusal),
        }
    }

    fn post(&mut self, now: UnixSeconds, endpoint: Endpoint, request: &Request) -> Result<Reply, Reply> {
        if request.header("authorization").is_some() {
            return Err(error(401, "invalid_client", "Client credentials belong into the body."));
        }
        let params = match (endpoint.provider(), request.media_type().as_deref()) {
            ("mal", Some("application/x-www-form-urlencoded")) | ("trakt", Some("application/json")) => {
                request.params().ok_or_else(|| error(400, "invalid_request", "The body cannot be read."))?
            }
            // Its parser of forms finds no grant_type in anything that is not a form.
            ("mal", _) => return Err(error(400, "unsupported_grant_type", "Check that grant_type is given.")),
            _ => return Err(Reply::html(415, "Unsupported Media Type", "Content-Type must be application/json.")),
        };
        let client_id = required(&params, "client_id")?;
        self.limit_rate(now, endpoint, client_id)?;
        let client = self.authenticate(client_id, &params)?;
        match endpoint {
            Endpoint::TraktToken => self.trakt_token(now, client_id, client.as_ref(), &params),
            Endpoint::MalToken => self.mal_token(now, client_id, &params),
            Endpoint::DeviceCode => Ok(self.device_code(now, client_id, request)),
            Endpoint::DeviceToken => {
                let code = required(&params, "code")?;
                // Trakt's documentation speaks of the status alone: a client that needs a body is wrong.
                Ok(self.poll_device(now, client_id, code).map_or_else(|poll| Reply::empty(poll.status()), granted))
            }
            _ => {
                // A token that is not known counts as revoked (RFC 7009 section 2.2).
                self.revoke(required(&params, "token")?);
                Ok(Reply::json(200, &json!({})))
            }
        }
    }

    fn trakt_token(
        &mut self,
        now: UnixSeconds,
        client_id: &str,
        client: Option<&Client>,
        params: &Params,
    ) -> Result<Reply, Reply> {
        let redirect_uri = required(params, "redirect_uri")?;
        if client.and_then(|client| client.redirect_uri.as_deref()).is_some_and(|known| known != redirect_uri) {
            return Err(error(400, "invalid_grant", GRANT_REFUSED));
        }
        match required(params, "grant_type")? {
            "refresh_token" => {
                let token = required(params, "refresh_token")?;
                self.refresh(now, "trakt", client_id, token).map(granted).map_err(|why| self.dead(why))
            }
            "authorization_code" => {
                let code = required(params, "code")?;
                self.redeem(now, "trakt", client_id, code, None).map(granted).map_err(|why| self.dead_code(why))
            }
            _ => Err(error(400, "unsupported_grant_type", "The authorization grant type is not supported.")),
        }
    }

    fn mal_token(&mut self, now: UnixSeconds, client_id: &str, params: &Params) -> Result<Reply, Reply> {
        match required(params, "grant_type")? {
            "refresh_token" => {
                let token = required(params, "refresh_token")?;
                self.refresh(now, "mal", client_id, token).map(granted).map_err(|why| self.dead(why))
            }
            "authorization_code" => {
                let (code, verifier) = (required(params, "code")?, params.named("code_verifier"));
                self.redeem(now, "mal", client_id, code, verifier).map(granted).map_err(|why| self.dead_code(why))
            }
            _ => Err(error(400, "unsupported_grant_type", "The authorization grant type is not supported.")),
        }
    }

    fn device_code(&mut self, now: UnixSeconds, client_id: &str, request: &Request) -> Reply {
        let (interval, expires_in) = (self.rules.device_interval_s, self.rules.device_lifetime_s);
        let own_page = || format!("http://{}/activate", request.header("host").unwrap_or("localhost"));
        let page = self.rules.verification_url.clone().unwrap_or_else(own_page);
        let device = self.issue_device(now, client_id);
        let answer = json!({
            "device_code": device.device_code.expose(), "user_code": device.user_code,
            "verification_url": page, "expires_in": expires_in, "interval": interval,
        });
        Reply::json(200, &answer)
    }

    /// The person is logged in and always agrees: the browser is sent on at once.
    fn authorize(&mut self, now: UnixSeconds, request: &Request) -> Reply {
        let refuse = |why: &str| Reply::html(400, "400 Bad Request", why);
        let Some(query) = request.query() else {
            return refuse("The query cannot be read.");
        };
        let (Some("code"), Some(client_id)) = (query.named("response_type"), query.named("client_id")) else {
            return refuse("response_type must be code, and client_id must be given.");
        };
        if !matches!(query.named("code_challenge_method"), None | Some("plain")) {
            return refuse("Only plain is supported as code_challenge_method.");
        }
        let redirect_uri = query.named("redirect_uri").unwrap_or("http://localhost/");
        if !redirect_uri.starts_with("http://localhost") {
            return refuse("redirect_uri is not registered.");
        }
        // RFC 7636 section 4.1 wants 43 to 128 unreserved characters, and MyAnimeList checks it.
        let is_unreserved = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        let challenge = query.named("code_challenge").filter(|text| (43..=128).contains(&text.len()));
        let Some(challenge) = challenge.filter(is_unreserved) else {
            return refuse("code_challenge must have 43 to 128 unreserved characters.");
        };
        let code = self.issue_code(now, client_id, challenge);
        let state = query.named("state").map(|state| format!("&state={}", escape(state))).unwrap_or_default();
        let joint = if redirect_uri.contains('?') { '&' } else { '?' };
        Reply::empty(302).with("location", format!("{redirect_uri}{joint}code={}{state}", escape(code.expose())))
    }

    fn whose_account(&mut self, now: UnixSeconds, request: &Request) -> Reply {
        let username = self.rules.username.clone();
        let (provider, answer) = if request.path() == "/users/settings" {
            let user = json!({"username": username, "private": false, "name": username, "ids": {"slug": username}});
            ("trakt", json!({"user": user, "account": {"timezone": "Etc/UTC"}}))
        } else {
            ("mal", json!({"id": 1, "name": username}))
        };
        let token = request.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        match token.map(|token| self.use_access_token(now, provider, token)) {
            Some(Ok(_)) => Reply::json(200, &answer),
            _ => error(401, "invalid_token", "The access token is invalid.").with("www-authenticate", "Bearer"),
        }
    }

    fn limit_rate(&mut self, now: UnixSeconds, endpoint: Endpoint, client_id: &str) -> Result<(), Reply> {
        let Some(interval_s) = self.rules.post_interval_s else {
            return Ok(());
        };
        let last = self.last_posts.entry((endpoint.provider(), client_id.to_owned())).or_insert(UnixSeconds(i64::MIN));
        let wait_s = interval_s - now.since(*last);
        if wait_s > 0 {
            return Err(Reply::text(429, "Too Many Requests").with("retry-after", wait_s.to_string()));
        }
        *last = now;
        Ok(())
    }

    fn authenticate(&self, client_id: &str, params: &Params) -> Result<Option<Client>, Reply> {
        if self.rules.clients.is_empty() {
            return Ok(None);
        }
        let client = self.rules.clients.iter().find(|client| client.id == client_id);
        let presented = params.named("client_secret");
        let is_right = |client: &&Client| match (&client.secret, presented) {
            (Some(secret), Some(presented)) => secret.expose() == presented,
            // Secrets are optional, and who has none may send anything.
            _ => true,
        };
        let refusal = || error(401, "invalid_client", "Client authentication failed.");
        client.filter(is_right).cloned().map(Some).ok_or_else(refusal)
    }

    fn dead(&self, why: Refused) -> Reply {
        let hint = match why {
            Refused::Unknown => "Cannot decrypt the refresh token",
            Refused::OtherClient => "Token is not linked to client",
            Refused::Expired => "Token has expired",
            Refused::Ended(_) => "Token has been revoked",
        };
        match self.rules.dead {
            DeadAnswer::InvalidGrant => error(400, "invalid_grant", GRANT_REFUSED),
            DeadAnswer::Unauthorized => error(401, "invalid_grant", GRANT_REFUSED),
            DeadAnswer::InvalidRequest => {
                let message = "The refresh token is invalid.";
                Reply::json(401, &json!({"error": "invalid_request", "message": message, "hint": hint}))
            }
        }
    }

    fn dead_code(&self, why: CodeRefused) -> Reply {
        let (status, code) = match self.rules.dead {
            DeadAnswer::InvalidGrant => (400, "invalid_grant"),
            DeadAnswer::Unauthorized => (401, "invalid_grant"),
            DeadAnswer::InvalidRequest => (400, "invalid_request"),
        };
        // Real providers do not say which; neither does this one.
        let (CodeRefused::Unknown | CodeRefused::Expired | CodeRefused::Used | CodeRefused::WrongVerifier) = why;
        error(status, code, GRANT_REFUSED)
    }
}

const GRANT_REFUSED: &str = "The provided authorization grant is invalid, expired, revoked, \
    does not match the redirection URI, or was issued to another client.";

/// An OAuth error (RFC 6749 section 5.2).
pub(super) fn error(status: u16, code: &str, description: &str) -> Reply {
    Reply::json(status, &json!({"error": code, "error_description": description}))
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Reply> {
    params.named(name).ok_or_else(|| error(400, "invalid_request", &format!("{name} is missing.")))
}

fn granted(grant: Grant) -> Reply {
    let mut answer = serde_json::Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            answer.insert(name.to_owned(), value);
        }
    };
    put("access_token", Some(grant.access_token.expose().into()));
    put("token_type", grant.token_type.map(Value::from));
    put("expires_in", grant.expires_in.map(Value::from));
    put("refresh_token", grant.refresh_token.map(|token| token.expose().into()));
    put("scope", grant.scope.map(Value::from));
    put("created_at", grant.created_at.map(|moment| moment.0.into()));
    Reply::json(200, &Value::Object(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{MAL, TRAKT};
    use crate::sandbox::rules::{Rotation, Rules};
    use crate::token::Secret;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const FORM: &str = "application/x-www-form-urlencoded";

    /// One table of requests to one ledger: what is sent, and the status and OAuth error of the answer.
    #[test]
    fn requests_that_a_provider_refuses() {
        let known = Client {
            id: "c".to_owned(),
            secret: Some(Secret::new("s")),
            redirect_uri: Some("urn:ietf:wg:oauth:2.0:oob".to_owned()),
        };
        let mut ledger = Ledger::new(Rules { clients: vec![known], ..Rules::default() });
        let trakt = |extra: &str| {
            let body = format!(r#"{{"client_id":"c","grant_type":"refresh_token","refresh_token":"x"{extra}}}"#);
            Request::post("/oauth/token", "application/json", body).with("user-agent", "test")
        };
        let raw = |path: &str, kind: &str, body: &str| Request::post(path, kind, body).with("user-agent", "test");
        let uri = r#","redirect_uri":"urn:ietf:wg:oauth:2.0:oob""#;
        let table = [
            ("dead token", trakt(uri), 400, "invalid_grant"),
            ("right secret", trakt(&format!(r#"{uri},"client_secret":"s""#)), 400, "invalid_grant"),
            ("wrong secret", trakt(&format!(r#"{uri},"client_secret":"t""#)), 401, "invalid_client"),
            ("HTTP Basic", trakt(uri).with("authorization", "Basic Yzpz"), 401, "invalid_client"),
            ("no redirect_uri", trakt(""), 400, "invalid_request"),
            ("other redirect_uri", trakt(r#","redirect_uri":"https://example.org""#), 400, "invalid_grant"),
            ("form to Trakt", raw("/oauth/token", FORM, "client_id=c"), 415, ""),
            ("broken JSON", raw("/oauth/token", "application/json", "{"), 400, "invalid_request"),
            ("unknown client", raw("/oauth/token", "application/json", r#"{"client_id":"d"}"#), 401, "invalid_client"),
            ("JSON to MyAnimeList", raw("/v1/oauth2/token", "application/json", "{}"), 400, "unsupported_grant_type"),
            ("no client", raw("/v1/oauth2/token", FORM, "grant_type=refresh_token"), 400, "invalid_request"),
            ("dead token", raw("/v1/oauth2/token", FORM, MAL_REFRESH), 400, "invalid_grant"),
            ("other grant", raw("/v1/oauth2/token", FORM, "client_id=c&grant_type=x"), 400, "unsupported_grant_type"),
            ("no User-Agent", Request::post("/oauth/token", "application/json", "{}"), 403, ""),
            ("GET", Request::get("/oauth/token").with("user-agent", "test"), 405, ""),
            ("nowhere", Request::get("/oauth/nothing").with("user-agent", "test"), 404, ""),
        ];
        for (what, request, status, code) in table {
            let reply = ledger.handle(NOW, &request);
            let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            assert_eq!((reply.status, body["error"].as_str().unwrap_or_default()), (status, code), "{what}");
        }
    }

    const MAL_REFRESH: &str = "client_id=c&grant_type=refresh_token&refresh_token=x";

    /// The three ways in which a dead refresh token has been refused.
    #[test]
    fn dead_token_answers() {
        for (dead, status, code) in [
            (DeadAnswer::InvalidGrant, 400, "invalid_grant"),
            (DeadAnswer::Unauthorized, 401, "invalid_grant"),
            (DeadAnswer::InvalidRequest, 401, "invalid_request"),
        ] {
            let mut ledger = Ledger::new(Rules { dead, ..Rules::default() });
            let reply =
                ledger.handle(NOW, &Request::post("/v1/oauth2/token", FORM, MAL_REFRESH).with("user-agent", "t"));
            let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
            assert_eq!((reply.status, body["error"].as_str()), (status, Some(code)), "{dead:?}");
        }
    }

    /// Each provider's answer has its own fields, and the next refresh works with it.
    #[test]
    fn grants_of_both_providers() {
        let mut ledger = Ledger::new(Rules { lifetime_s: Some(20), ..Rules::default() });
        let mut token = ledger.issue(NOW, &TRAKT, "c").refresh_token.expect("a refresh token");
        for _ in 0..3 {
            let body = json!({"client_id": "c", "client_secret": "any", "grant_type": "refresh_token",
                "redirect_uri": "urn:ietf:wg:oauth:2.0:oob", "refresh_token": token.expose()});
            let reply = ledger.handle(NOW, &post("/oauth/token", &body.to_string()));
            let grant = Grant::from_json(&reply.body).expect("a grant");
            assert_eq!((grant.created_at, grant.expires_in), (Some(NOW), Some(20)));
            assert_eq!((grant.scope.as_deref(), grant.token_type.as_deref()), (Some("public"), Some("bearer")));
            token = grant.refresh_token.expect("a refresh token");
        }
        let token = ledger.issue(NOW, &MAL, "c").refresh_token.expect("a refresh token");
        let body = format!("client_id=c&client_secret=&grant_type=refresh_token&refresh_token={}", token.expose());
        let reply = ledger.handle(NOW, &Request::post("/v1/oauth2/token", FORM, body).with("user-agent", "test"));
        let grant = Grant::from_json(&reply.body).expect("a grant");
        assert!(grant.created_at.is_none() && grant.scope.is_none() && grant.refresh_token.is_some());
        assert_eq!(grant.token_type.as_deref(), Some("Bearer"));
    }

    /// PKCE from the authorization page to the grant, as a person with a browser goes it.
    #[test]
    fn pasted_url() {
        let mut ledger = Ledger::new(Rules::default());
        let verifier = "v".repeat(64);
        let get = |target: String| Request::get(&target).with("user-agent", "test");
        let page = "/v1/oauth2/authorize?response_type=code&client_id=c";
        for bad in ["", "&code_challenge=short", "&code_challenge=S&code_challenge_method=S256"] {
            assert_eq!(ledger.handle(NOW, &get(format!("{page}{bad}"))).status, 400, "{bad}");
        }
        let reply = ledger.handle(NOW, &get(format!("{page}&code_challenge={verifier}&state=a%20b")));
        let location = reply.header("location").expect("a redirect");
        let (address, query) = location.split_once('?').expect("a query");
        let query = Params::from_form(query).expect("a query");
        assert_eq!((reply.status, address, query.named("state")), (302, "http://localhost/", Some("a b")));
        let code = query.named("code").expect("a code");
        let mut redeem = |verifier: &str| {
            let body = format!("client_id=c&grant_type=authorization_code&code={code}&code_verifier={verifier}");
            ledger.handle(NOW, &Request::post("/v1/oauth2/token", FORM, body).with("user-agent", "test")).status
        };
        assert_eq!([redeem("wrong"), redeem(&verifier), redeem(&verifier)], [400, 200, 400]);
    }

    /// The device flow over its two endpoints; the page to visit is this server's own.
    #[test]
    fn device_flow() {
        let mut ledger = Ledger::new(Rules::default());
        let request = post("/oauth/device/code", r#"{"client_id":"c"}"#).with("host", "127.0.0.1:8737");
        let answer: Value = serde_json::from_slice(&ledger.handle(NOW, &request).body).expect("JSON");
        assert_eq!(answer["verification_url"], "http://127.0.0.1:8737/activate");
        assert_eq!((&answer["interval"], &answer["expires_in"]), (&json!(5), &json!(600)));
        let poll = post("/oauth/device/token", &json!({"client_id": "c", "code": answer["device_code"]}).to_string());
        assert_eq!(ledger.handle(NOW, &poll).status, 400);
        let user_code = answer["user_code"].as_str().expect("a user code");
        ledger.decide_device(user_code, super::super::codes::Decision::Approved);
        assert_eq!(ledger.handle(NOW.plus(5), &poll).status, 200);
        assert_eq!(ledger.handle(NOW.plus(10), &poll).status, 409);
    }

    /// The data API knows whose token it is, and the first use of a pair ends the grace of the one before.
    #[test]
    fn data_api() {
        let mut ledger = Ledger::new(Rules { rotation: Rotation::Grace, ..Rules::default() });
        let old = ledger.issue(NOW, &TRAKT, "c");
        let token = old.refresh_token.as_ref().expect("a refresh token").expose();
        let new = ledger.refresh(NOW, "trakt", "c", token).expect("a grant");
        let ask = |token: &Secret| {
            let bearer = format!("Bearer {}", token.expose());
            Request::get("/users/settings").with("user-agent", "test").with("authorization", &bearer)
        };
        assert_eq!(ledger.handle(NOW, &ask(&old.access_token)).status, 200);
        let reply = ledger.handle(NOW, &ask(&new.access_token));
        let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(answer["user"]["username"], "sandbox");
        assert_eq!(ledger.handle(NOW, &ask(&old.access_token)).status, 401);
        assert_eq!(ledger.handle(NOW, &Request::get("/users/settings").with("user-agent", "t")).status, 401);
    }

    /// One POST a second for each client, and `Retry-After` says how long to wait.
    #[test]
    fn rate_limit() {
        let mut ledger = Ledger::new(Rules { post_interval_s: Some(1), ..Rules::default() });
        let mut ask = |client: &str, at| {
            let body = json!({"client_id": client}).to_string();
            ledger.handle(NOW.plus(at), &post("/oauth/device/code", &body))
        };
        assert_eq!([ask("c", 0).status, ask("d", 0).status, ask("c", 1).status], [200, 200, 200]);
        let reply = ask("c", 1);
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    }

    /// Revoking either token kills the pair; an unknown token is no error (RFC 7009).
    #[test]
    fn revocation() {
        let mut ledger = Ledger::new(Rules::default());
        let token = ledger.issue(NOW, &TRAKT, "c").refresh_token.expect("a refresh token");
        for token in ["unknown", token.expose()] {
            let body = json!({"client_id": "c", "token": token}).to_string();
            assert_eq!(ledger.handle(NOW, &post("/oauth/revoke", &body)).status, 200);
        }
        assert!(!ledger.is_live(NOW, token.expose()));
    }

    fn post(path: &str, body: &str) -> Request {
        Request::post(path, "application/json", body).with("user-agent", "test")
    }
}
