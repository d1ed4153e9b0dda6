//! `weft adapter deploy` against a server that plays the conversations of `goldens/deploy`.

use super::{adapter, golden, write};
use crate::{outcome, read, text, weft};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the server heard: method and path, the body, the authorization.
type Heard = Arc<Mutex<Vec<(String, Value, Option<String>)>>>;

/// Answers one request after the other as they are written down; what comes after them gets no answer.
fn serve(exchanges: Vec<Value>, folder: String) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard: Heard = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut hanging = Vec::new();
        let mut exchanges = exchanges.into_iter();
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            log.lock().expect("no panic").push(request(&stream));
            match exchanges.next() {
                Some(exchange) if exchange["hangs"] != true => answer(&stream, &exchange, &folder),
                // Open and silent.
                _ => hanging.push(stream),
            }
        }
    });
    (port, heard)
}

fn request(stream: &TcpStream) -> (String, Value, Option<String>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let fits = |line: &&String| line.split(':').next().is_some_and(|key| key.eq_ignore_ascii_case(name));
        lines.iter().find(fits).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let length = header("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let call = lines[0].rsplit_once(' ').expect("a version").0.to_owned();
    (call, serde_json::from_slice(&body).unwrap_or(Value::Null), header("authorization"))
}

fn answer(mut stream: &TcpStream, exchange: &Value, folder: &str) {
    let text =
        exchange["text"].as_str().map_or_else(|| exchange["answer"].to_string(), ToOwned::to_owned).replace("FOLDER", folder);
    let kind = if exchange["text"].is_string() { "text/plain" } else { "application/json" };
    let location = exchange["location"].as_str().map_or_else(String::new, |to| format!("Location: {to}\r\n"));
    let head = format!(
        "HTTP/1.1 {} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n",
        exchange["status"],
        text.len()
    );
    stream.write_all([head.as_bytes(), text.as_bytes()].concat().as_slice()).expect("the program listens");
}

fn play(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/deploy").join(file);
    let golden: Value = serde_json::from_slice(&std::fs::read(path).expect("a golden")).expect("JSON");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("tone");
    for scenario in golden["scenarios"].as_array().expect("scenarios") {
        let name = &scenario["name"];
        let settings = scenario.get("settings").cloned().unwrap_or(json!({}));
        adapter(&folder, &settings);
        let full = folder.canonicalize().expect("a path");
        let exchanges = scenario["exchanges"].as_array().expect("exchanges").clone();
        let (port, heard) = serve(exchanges.clone(), text(&full).to_owned());
        let to = format!("{}=http://127.0.0.1:{port}/", golden["engine"].as_str().expect("an engine"));
        let more = scenario["arguments"].as_array().cloned().unwrap_or_default();
        let more: Vec<&str> = more.iter().filter_map(Value::as_str).collect();
        let (code, out, err) = outcome(&[&["adapter", "deploy", text(&folder), "--to", &to], more.as_slice()].concat());
        assert_eq!(json!(code), scenario["code"], "{name}: {out}{err}");
        for says in scenario["says"].as_array().expect("words").iter().filter_map(Value::as_str) {
            assert!(out.contains(says) || err.contains(says), "{name}: `{says}` is not in\n{out}{err}");
        }
        let expected: Vec<_> = exchanges
            .iter()
            .map(|exchange| {
                let body = exchange["body"].to_string().replace("FOLDER", text(&full));
                (exchange["call"].as_str().expect("a call").to_owned(), serde_json::from_str(&body).expect("JSON"), None)
            })
            .collect();
        let mut heard = heard.lock().expect("no panic").clone();
        for (_, body, _) in &mut heard {
            // Spelled after what is in the folder, it is the folder.
            if let Some(path) = body.get_mut("lora_path") {
                let named = Path::new(path.as_str().expect("a path")).canonicalize().expect("a folder");
                *path = json!(text(&named));
            }
        }
        assert_eq!(heard, expected, "{name}");
    }
}

#[test]
fn vllm_gets_another_path_for_other_weights() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("tone");
    let path = |settings: &Value| {
        adapter(&folder, settings);
        let listed = json!({ "status": 200, "answer": { "data": [] } });
        let refused = json!({ "status": 400, "answer": { "message": "no" } });
        let (port, heard) = serve(vec![listed, refused], String::new());
        let to = format!("vllm=http://127.0.0.1:{port}");
        assert_eq!(outcome(&["adapter", "deploy", text(&folder), "--to", &to]).0, Some(1));
        let heard = heard.lock().expect("no panic");
        heard[1].1["lora_path"].as_str().expect("a path").to_owned()
    };
    let paths = [json!({}), json!({ "lora_alpha": 8 }), json!({})].map(|settings| path(&settings));
    assert!(paths[0] == paths[2] && paths[0] != paths[1], "{paths:?}");
}

#[test]
fn conversations_with_vllm() {
    play("vllm.json");
}

#[test]
fn conversations_with_sglang() {
    play("sglang.json");
}

#[test]
fn a_key_is_sent_and_never_shown() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("tone");
    adapter(&folder, &json!({}));
    let refusal = json!({ "status": 401, "answer": { "error": "Unauthorized" } });
    let (port, heard) = serve(vec![refusal], String::new());
    let to = format!("vllm=http://127.0.0.1:{port}");
    let output = weft(&["adapter", "deploy", text(&folder), "--to", &to]).env("WEFT_API_KEY", "geheim").output().expect("it runs");
    let (code, out, err) = read(&output);
    assert!(code == Some(1) && err.contains("status 401") && !(out + &err).contains("geheim"), "{err}");
    assert_eq!(heard.lock().expect("no panic")[0].2.as_deref(), Some("Bearer geheim"));
}

#[test]
fn nothing_is_called_that_should_not_be() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("tone");
    adapter(&folder, &json!({}));
    let refused = |arguments: &[&str], expected: &str| {
        let (code, _, err) = outcome(&[&["adapter", "deploy"], arguments].concat());
        assert!(code == Some(1) && err.contains(expected), "{err}");
    };
    let own = text(&folder);
    refused(&[own, "--to", "vllm=http://192.0.2.1:8000"], "`--allow-remote` calls it");
    refused(&[own, "--to", "sglang=https://localhost:8000"], "`https` is not spoken here");
    refused(&[own, "--to", "vllm=http://127.0.0.1:1"], "got no answer");
    refused(&[own, "--to", "vllm=http://127.0.0.1:1", "--name", "../x"], "an adapter's name must be letters");
    refused(&[text(&golden("peft-dora")), "--to", "vllm=http://127.0.0.1:1"], "vLLM would not load all of it");
    let kohya = dir.path().join("k.safetensors");
    write(&kohya, &[("lora_unet_proj_in.lora_down.weight", &[2, 3]), ("lora_unet_proj_in.lora_up.weight", &[4, 2])]);
    refused(&[text(&kohya), "--to", "vllm=http://127.0.0.1:1"], "engines load folders of PEFT");
}

#[test]
fn a_folder_of_the_resolver() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, target] = ["tone", "served"].map(|name| dir.path().join(name));
    adapter(&folder, &json!({}));
    let deploy = |more: &[&str]| outcome(&[&["adapter", "deploy", text(&folder), "--to", text(&target)], more].concat());
    let (code, _, err) = deploy(&[]);
    assert!(code == Some(1) && err.contains("it is no folder"), "{err}");
    std::fs::create_dir(&target).expect("a folder");
    let (code, out, err) = deploy(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("VLLM_LORA_RESOLVER_CACHE_DIR"), "{out}");
    let same = |name: &str| {
        std::fs::read(folder.join(name)).expect("a file") == std::fs::read(target.join("tone").join(name)).expect("a file")
    };
    assert!(same("adapter_config.json") && same("adapter_model.safetensors"));
    let (code, _, err) = deploy(&[]);
    assert!(code == Some(1) && err.contains("there is something of this name already"), "{err}");
    adapter(&folder, &json!({ "lora_alpha": 8 }));
    let (code, _, err) = deploy(&["--replace"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(same("adapter_config.json"));
    let names: Vec<_> = std::fs::read_dir(&target).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["tone"]);
    std::fs::create_dir(target.join("mine")).expect("a folder");
    let (code, _, err) = deploy(&["--replace", "--name", "mine"]);
    assert!(code == Some(1) && err.contains("what is there under this name is no adapter"), "{err}");
}
