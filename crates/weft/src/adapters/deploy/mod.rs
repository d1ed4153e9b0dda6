//! Adapters onto a server that runs: the engine's own calls, and a look whether the adapter answers.
//!
//! | engine | load | unload | listed in |
//! |---|---|---|---|
//! | vLLM | `POST /v1/load_lora_adapter` `{lora_name, lora_path}` | `POST /v1/unload_lora_adapter` `{lora_name}` | `GET /v1/models` |
//! | `SGLang` | `POST /load_lora_adapter` `{lora_name, lora_path}` | `POST /unload_lora_adapter` `{lora_name}` | the answer's `loaded_adapters` |
//!
//! Both take prompts alike: where one is given, `POST /v1/completions` `{model, prompt, max_tokens: 1, temperature: 0}` must be
//! answered. A folder is vLLM's for its resolver: an adapter in it is loaded when a request names it. The path that an engine
//! gets is this machine's, so the server must see the same files; vLLM's is spelled after what is in the folder (`spelled.rs`).
//! A call that fails is undone by the one that unloads, and the error says what is left behind. Where it matters which version
//! of vLLM answers, `GET /version` is asked as well.
//!
//! # References
//! vLLM's documentation, "LoRA Adapters": "Dynamically serving LoRA Adapters" and "Using Plugins"; `SGLang`'s, "LoRA
//! Serving": "Dynamic LoRA loading". `tests/python/test_engines.py` runs vLLM.

mod http;
mod resolver;
mod spelled;

use crate::{Error, Result};
use http::{Client, Reply};
use serde::Serialize;
use spelled::{VLLM_KEEPS_BY_PATH, spelled};
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_zoo::adapter::{AdapterFile, AdapterNaming, AdapterWeights, Finding, LintOptions, Runtime, Severity};

/// The longest name of an adapter.
const MAX_NAME: usize = 128;

/// Where an adapter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A server of vLLM, by its address.
    Vllm(String),
    /// A server of `SGLang`, by its address.
    Sglang(String),
    /// A folder that vLLM's resolver looks into.
    Folder(PathBuf),
}

impl Engine {
    /// `vllm=URL`, `sglang=URL` or a folder.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some(("vllm", url)) => Self::Vllm(url.to_owned()),
            Some(("sglang", url)) => Self::Sglang(url.to_owned()),
            _ => Self::Folder(PathBuf::from(text)),
        }
    }
}

/// An adapter and its server.
#[derive(Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The adapter: a folder of PEFT.
    pub folder: PathBuf,
    /// Where it goes.
    pub to: Engine,
    /// Its name there; the folder's, if none is given.
    pub name: Option<String>,
    /// Takes the place of an adapter of the same name.
    pub replace: bool,
    /// A prompt that the adapter must answer with a token.
    pub ask: Option<String>,
    /// Whether a server on another machine may be called.
    pub allow_remote: bool,
    /// How long an answer may take, in seconds.
    pub timeout_secs: u64,
    /// The key that the server asks for.
    pub api_key: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeployView {
    /// The adapter's name there.
    pub name: String,
    /// Where it is.
    pub target: String,
    /// The calls, in their order.
    pub calls: Vec<ExchangeView>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExchangeView {
    /// Method and path.
    pub call: String,
    /// The status of the answer.
    pub status: u16,
}

/// Deploys an adapter and checks that it is there.
///
/// # Errors
/// The adapter is none that the engine loads, the address is not allowed, the server refuses, hangs or does not list it;
/// [`Error::Deploy`] says what is left behind.
pub fn deploy(deploy: &Deploy) -> Result<DeployView> {
    let name = match &deploy.name {
        Some(name) => name.clone(),
        None => folder_name(&deploy.folder)?,
    };
    check_name(&name)?;
    let adapter = Checked::new(deploy)?;
    match &deploy.to {
        Engine::Folder(target) => {
            let mut view = resolver::place(&adapter.folder, target, &name, deploy.replace)?;
            view.notes.extend(adapter.file.notes.iter().cloned());
            view.notes.extend(adapter.patterns(None)?.into_iter().map(|finding| finding.what));
            Ok(view)
        }
        Engine::Vllm(url) => Session::new(deploy, url, &VLLM, name)?.run(&adapter),
        Engine::Sglang(url) => Session::new(deploy, url, &SGLANG, name)?.run(&adapter),
    }
}

/// An adapter that was read as a whole before anyone is asked to load it.
struct Checked {
    file: AdapterFile,
    folder: PathBuf,
}

impl Checked {
    fn new(deploy: &Deploy) -> Result<Self> {
        let file = AdapterWeights::read(&deploy.folder, None)?;
        if file.naming != AdapterNaming::Peft {
            let reason = format!("its names are {}'s, and engines load folders of PEFT", file.naming.name());
            return Err(Error::NotDeployed { path: deploy.folder.clone(), reason });
        }
        let folder = file.files[0].parent().unwrap_or(Path::new("")).to_owned();
        let adapter = Self { folder: folder.canonicalize().map_err(Error::io("read", &folder))?, file };
        if !matches!(deploy.to, Engine::Sglang(_)) {
            adapter.refuse(&adapter.findings(None)?, "vLLM")?;
        }
        Ok(adapter)
    }

    /// What a version of vLLM would refuse or compute otherwise; the largest rank is the server's to say.
    fn findings(&self, version: Option<[u32; 2]>) -> Result<Vec<Finding>> {
        let options = LintOptions { max_lora_rank: Some(usize::MAX), vllm_version: version, ..LintOptions::default() };
        Ok(weft_zoo::adapter::lint(&self.file, &[Runtime::Vllm], &options)?)
    }

    /// What becomes of ranks and scalings by patterns, if there are any.
    fn patterns(&self, version: Option<[u32; 2]>) -> Result<Vec<Finding>> {
        let mut findings = self.findings(version)?;
        findings.retain(|finding| matches!(finding.rule, "scaling" | "rank-pattern"));
        Ok(findings)
    }

    fn refuse(&self, findings: &[Finding], engine: &str) -> Result<()> {
        let Some(finding) = findings.iter().find(|finding| finding.severity != Severity::Depends) else { return Ok(()) };
        let reason = format!("{engine} would not load all of it: {}", finding.what);
        Err(Error::NotDeployed { path: self.file.path.clone(), reason })
    }
}

fn folder_name(folder: &Path) -> Result<String> {
    let full = folder.canonicalize().map_err(Error::io("read", folder))?;
    Ok(full.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
}

/// A name becomes a part of addresses and paths.
fn check_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain && !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') {
        return Ok(());
    }
    let expected = format!("letters, digits, `-`, `_` and `.`, at most {MAX_NAME}, no `.` in front");
    Err(Error::Range { what: "an adapter's name", expected, got: format!("`{}`", name.chars().take(80).collect::<String>()) })
}

/// The calls of an engine.
struct Calls {
    load: &'static str,
    unload: &'static str,
    /// Whether the answer to a load lists what is loaded.
    lists: bool,
    /// Whether it is vLLM, whose versions differ.
    is_vllm: bool,
    /// What a server must have been started with, where it does not know the call.
    enabled_by: &'static str,
}

const VLLM: Calls = Calls {
    load: "/v1/load_lora_adapter",
    unload: "/v1/unload_lora_adapter",
    lists: false,
    is_vllm: true,
    enabled_by: "the server must be started with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`",
};

const SGLANG: Calls = Calls {
    load: "/load_lora_adapter",
    unload: "/unload_lora_adapter",
    lists: true,
    is_vllm: false,
    enabled_by: "the server must be started with `--enable-lora`, `--max-lora-rank` and `--lora-target-modules`",
};

/// A deployment on the way.
struct Session<'a> {
    client: Client,
    calls: &'a Calls,
    name: String,
    replace: bool,
    ask: Option<String>,
    /// Whether an adapter of this name was there and has been unloaded.
    unloaded: bool,
    done: Vec<ExchangeView>,
}

impl<'a> Session<'a> {
    fn new(deploy: &Deploy, url: &str, calls: &'a Calls, name: String) -> Result<Self> {
        let timeout = Duration::from_secs(deploy.timeout_secs.max(1));
        let client = Client::new(url, timeout, deploy.allow_remote, deploy.api_key.clone())?;
        Ok(Self { client, calls, name, replace: deploy.replace, ask: deploy.ask.clone(), unloaded: false, done: Vec::new() })
    }

    fn run(mut self, adapter: &Checked) -> Result<DeployView> {
        let mut notes = adapter.file.notes.clone();
        let is_there = self.models()?.contains(&self.name);
        if is_there && !self.replace {
            return Err(self.fail("it lists an adapter of this name already; `--replace` takes its place", NOTHING));
        }
        let mut path = adapter.folder.display().to_string();
        if self.calls.is_vllm {
            self.check_version(adapter, is_there, &mut notes)?;
            path = spelled(&adapter.folder, &adapter.file)?;
        }
        if is_there {
            let unknown = "not known: the adapter of this name may be unloaded";
            let reply = self.post(self.calls.unload, &serde_json::json!({ "lora_name": self.name }), unknown)?;
            if !reply.is_success() {
                return Err(self.refused("unload the adapter of this name", &reply, NOTHING));
            }
            notes.push("an adapter of this name was unloaded before".to_owned());
            self.unloaded = true;
        }
        let left = if self.unloaded { UNLOADED } else { NOTHING };
        let body = serde_json::json!({ "lora_name": self.name, "lora_path": path });
        let reply = match self.client.post(self.calls.load, &body) {
            Ok(reply) => self.note("POST", self.calls.load, reply),
            Err(reason) => {
                let undone = self.undo();
                return Err(self.fail(&format!("`POST {}` got no answer: {reason}", self.calls.load), &undone));
            }
        };
        if !reply.is_success() {
            return Err(self.refused("load the adapter", &reply, left));
        }
        let named = self.calls.lists && reply.json().is_some_and(|json| json["loaded_adapters"].get(&self.name).is_some());
        let listed = self.models();
        let found = match &listed {
            Ok(models) => models.contains(&self.name),
            Err(_) => false,
        };
        if !found && !named {
            let undone = self.undo();
            let reason = match listed {
                Err(Error::Deploy { reason, .. }) => format!("it took the adapter and then failed: {reason}"),
                _ => "it took the adapter and does not list it".to_owned(),
            };
            return Err(self.fail(&reason, &undone));
        }
        if let Some(prompt) = self.ask.clone() {
            let said = self.completion(&prompt)?;
            notes.push(format!("asked `{prompt}`, it goes on with `{said}`"));
        }
        if !found {
            notes.push("the server's list of models does not have it; its answer to the load does".to_owned());
        }
        notes.push(format!(
            "requests name it as their model: `{}`; it stays until the server ends or is told to unload it",
            self.name
        ));
        Ok(DeployView { name: self.name, target: self.client.base().to_owned(), calls: self.done, notes })
    }

    /// Refuses what the server's version would compute wrongly, and notes what is not known and what it keeps.
    fn check_version(&mut self, adapter: &Checked, replaces: bool, notes: &mut Vec<String>) -> Result<()> {
        let patterns = adapter.patterns(None)?;
        if patterns.is_empty() && !replaces {
            return Ok(());
        }
        let version = self.version();
        match version {
            Some([major, minor]) => adapter.refuse(&adapter.patterns(version)?, &format!("vLLM {major}.{minor}"))?,
            None => notes.extend(patterns.into_iter().map(|finding| finding.what)),
        }
        if replaces && version.is_none_or(|version| version < VLLM_KEEPS_BY_PATH) {
            notes.push(KEEPS_BY_NAME.to_owned());
        }
        Ok(())
    }

    /// The server's version, major and minor, if it says it.
    fn version(&mut self) -> Option<[u32; 2]> {
        let path = "/version";
        let reply = self.client.get(path).ok()?;
        let reply = self.note("GET", path, reply);
        parse_version(reply.json()?["version"].as_str()?)
    }

    /// The names of all models that the server lists.
    fn models(&mut self) -> Result<Vec<String>> {
        let path = "/v1/models";
        let reply = match self.client.get(path) {
            Ok(reply) => self.note("GET", path, reply),
            Err(reason) => return Err(self.fail(&format!("`GET {path}` got no answer: {reason}"), NOTHING)),
        };
        if !reply.is_success() {
            return Err(self.refused("list its models", &reply, NOTHING));
        }
        let json = reply.json();
        let data = json.as_ref().and_then(|json| json["data"].as_array());
        let Some(data) = data else { return Err(self.fail(&format!("its answer to `GET {path}` is no list of models"), NOTHING)) };
        Ok(data.iter().filter_map(|model| model["id"].as_str().map(ToOwned::to_owned)).collect())
    }

    /// What the adapter says to a prompt, one token; it is unloaded if it says nothing.
    fn completion(&mut self, prompt: &str) -> Result<String> {
        let path = "/v1/completions";
        let body = serde_json::json!({ "model": self.name, "prompt": prompt, "max_tokens": 1, "temperature": 0 });
        let reason = match self.client.post(path, &body) {
            Ok(reply) => {
                let reply = self.note("POST", path, reply);
                let text = reply.json().and_then(|json| Some(json["choices"][0]["text"].as_str()?.to_owned()));
                match text.filter(|_| reply.is_success()) {
                    Some(text) => return Ok(text),
                    None => format!("it does not answer a prompt: {}", reply.described()),
                }
            }
            Err(reason) => format!("`POST {path}` got no answer: {reason}"),
        };
        let undone = self.undo();
        Err(self.fail(&reason, &undone))
    }

    fn post(&mut self, path: &'static str, body: &serde_json::Value, left: &str) -> Result<Reply> {
        match self.client.post(path, body) {
            Ok(reply) => Ok(self.note("POST", path, reply)),
            Err(reason) => Err(self.fail(&format!("`POST {path}` got no answer: {reason}"), left)),
        }
    }

    fn note(&mut self, method: &str, path: &str, reply: Reply) -> Reply {
        self.done.push(ExchangeView { call: format!("{method} {path}"), status: reply.status });
        reply
    }

    /// Unloads what may have been loaded, and says what came of it.
    fn undo(&mut self) -> String {
        let path = self.calls.unload;
        let reply = self.client.post(path, &serde_json::json!({ "lora_name": self.name }));
        match reply.map(|reply| self.note("POST", path, reply)) {
            Ok(reply) if reply.is_success() && self.unloaded => format!("{UNLOADED}; `POST {path}` undid the rest"),
            Ok(reply) if reply.is_success() => format!("nothing: `POST {path}` undid it"),
            Ok(reply) => format!(
                "{}unknown: `POST {path}` was answered with {}; if the server still loads `{}`, call it again",
                self.before(),
                reply.described(),
                self.name
            ),
            Err(reason) => format!(
                "{}unknown: `POST {path}` got no answer either ({reason}); the server may still load `{}`",
                self.before(),
                self.name
            ),
        }
    }

    /// What is left of an adapter that was there, as the beginning of a sentence.
    fn before(&self) -> String {
        if self.unloaded { format!("{UNLOADED}; the rest is ") } else { String::new() }
    }

    fn refused(&self, what: &str, reply: &Reply, left: &str) -> Error {
        let hint = if reply.status == 404 && !reply.text.contains("lora") {
            format!(": it does not know the call; {}", self.calls.enabled_by)
        } else {
            String::new()
        };
        self.fail(&format!("it does not {what}: {}{hint}", reply.described()), left)
    }

    fn fail(&self, reason: &str, left: &str) -> Error {
        Error::Deploy {
            target: self.client.base().to_owned(),
            name: self.name.clone(),
            reason: reason.to_owned(),
            left: left.to_owned(),
        }
    }
}

/// Major and minor of a version such as `0.32.0` or `1.4.0rc1`.
fn parse_version(text: &str) -> Option<[u32; 2]> {
    let mut parts = text.split('.');
    let mut number = || parts.next()?.parse().ok();
    Some([number()?, number()?])
}

const KEEPS_BY_NAME: &str = "vLLM before 0.31 keeps what it has computed of prompts by the adapter's name: prompts that it has seen may go on \
                             from what the old one computed, until the server starts anew or the adapter has another name";
const NOTHING: &str = "nothing";
const UNLOADED: &str = "the adapter of this name that was there is unloaded";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |text: &str, expected: Option<[u32; 2]>| assert_eq!(parse_version(text), expected, "{text}");
        check("0.32.0", Some([0, 32]));
        check("0.30.1.dev5+gabc", Some([0, 30]));
        check("1.4.0rc1", Some([1, 4]));
        check("dev", None);
        check("1.x", None);
        check("", None);
    }

    #[test]
    fn targets_and_names() {
        assert_eq!(Engine::parse("vllm=http://localhost:8000"), Engine::Vllm("http://localhost:8000".to_owned()));
        assert_eq!(Engine::parse("sglang=http://[::1]:30000"), Engine::Sglang("http://[::1]:30000".to_owned()));
        assert_eq!(Engine::parse("/srv/adapters"), Engine::Folder(PathBuf::from("/srv/adapters")));
        for name in ["a", "Tone-1.2_b"] {
            assert!(check_name(name).is_ok());
        }
        for name in ["", "a/b", "..", ".a", "a b", "ä", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
