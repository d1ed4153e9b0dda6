//! Calls over HTTP: plain, bounded, to this machine unless told otherwise, with no proxy and no redirection.

use crate::{Error, Result};
use std::net::IpAddr;
use std::time::Duration;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// What is shown of an answer, in characters.
const MAX_SHOWN: usize = 300;

/// A server.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    api_key: Option<String>,
    timeout: Duration,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.text).ok()
    }

    /// Status and message, on one line.
    pub(super) fn described(&self) -> String {
        let json = self.json();
        let said = json.as_ref().and_then(|json| {
            let inner = [&json["error"]["message"], &json["message"], &json["error_message"], &json["detail"]];
            inner.into_iter().find_map(|value| value.as_str())
        });
        let text: String =
            said.unwrap_or(&self.text).chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN).collect();
        if text.trim().is_empty() {
            format!("status {}", self.status)
        } else {
            format!("status {}, `{}`", self.status, text.trim())
        }
    }
}

impl Client {
    /// A client of a server at `http://HOST[:PORT][/PREFIX]`.
    ///
    /// # Errors
    /// [`Error::Address`] for other schemes, credentials, and hosts elsewhere unless they are allowed.
    pub(super) fn new(url: &str, timeout: Duration, allow_remote: bool, api_key: Option<String>) -> Result<Self> {
        let base = checked(url, allow_remote)?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: ureq::Agent::new_with_config(config), base, api_key, timeout })
    }

    /// The server's address.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks; the error says why there was no answer.
    pub(super) fn get(&self, path: &str) -> std::result::Result<Reply, String> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        self.read(request.call())
    }

    /// Sends JSON; the error says why there was no answer.
    pub(super) fn post(&self, path: &str, body: &serde_json::Value) -> std::result::Result<Reply, String> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("Content-Type", "application/json");
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        self.read(request.send(body.to_string()))
    }

    fn read(
        &self,
        answer: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> std::result::Result<Reply, String> {
        let said = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => format!("none within {} s", self.timeout.as_secs()),
            other => other.to_string(),
        };
        let mut answer = answer.map_err(said)?;
        let bytes = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(said)?;
        Ok(Reply { status: answer.status().as_u16(), text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// The address without a slash at its end, if it may be called.
fn checked(url: &str, allow_remote: bool) -> Result<String> {
    let refuse = |reason: &str| Error::Address { url: url.to_owned(), reason: reason.to_owned() };
    if url.starts_with("https://") {
        return Err(refuse("`https` is not spoken here; forward a port of this machine to the server, such as with `ssh -L`"));
    }
    let rest = url.strip_prefix("http://").ok_or_else(|| refuse("expected `http://HOST:PORT`"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#']) || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refuse("expected `http://HOST:PORT`, with no name, no question and no fragment"));
    }
    let host = match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() {
        return Err(refuse("it names no host"));
    }
    let here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !here && !allow_remote {
        return Err(refuse("it is another machine's; `--allow-remote` calls it, unencrypted"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for url in ["http://localhost:8000", "http://127.0.0.1", "http://127.8.9.1:1/", "http://[::1]:30000/prefix/"] {
            assert_eq!(checked(url, false).ok().as_deref(), Some(url.trim_end_matches('/')));
        }
        let refused = |url: &str, remote: bool, expected: &str| {
            let error = checked(url, remote).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        };
        refused("https://localhost:8000", true, "`https` is not spoken here");
        refused("ftp://localhost", true, "expected `http://HOST:PORT`");
        refused("http://10.0.0.1:8000", false, "`--allow-remote`");
        refused("http://localhost.example.org", false, "`--allow-remote`");
        refused("http://127.0.0.1@example.org", true, "no name");
        refused("http://localhost:8000/?x", true, "no question");
        refused("http://", true, "names no host");
        assert!(checked("http://10.0.0.1:8000", true).is_ok());
    }

    #[test]
    fn messages_of_engines() {
        let said = |status: u16, text: &str| Reply { status, text: text.to_owned() }.described();
        assert_eq!(said(400, r#"{"error": {"message": "no"}}"#), "status 400, `no`");
        assert_eq!(said(400, r#"{"object": "error", "message": "no"}"#), "status 400, `no`");
        assert_eq!(said(400, r#"{"success": false, "error_message": "no"}"#), "status 400, `no`");
        assert_eq!(said(404, r#"{"detail": "Not Found"}"#), "status 404, `Not Found`");
        assert_eq!(said(500, "a\nb\x1b[2J"), "status 500, `a b [2J`");
        assert_eq!(said(503, ""), "status 503");
    }
}
