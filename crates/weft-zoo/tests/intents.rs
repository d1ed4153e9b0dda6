//! `CLINC150` and `BANKING77`: what is read, and what is refused by the file's name.

use std::path::Path;
use weft_zoo::data::{BANKING77_DOMAIN, banking77, clinc150};

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a folder of the test");
}

fn clinc(folder: &Path) {
    let full = r#"{
        "oos_train": [["who won", "oos"]],
        "train": [["stop my card", "freeze_account"], ["new pin", "pin_change"], ["lock it", "freeze_account"]],
        "val": [["freeze", "freeze_account"]],
        "test": [["please freeze", "freeze_account"], ["change my pin", "pin_change"]]
    }"#;
    write(folder, "data_full.json", full);
    write(folder, "domains.json", r#"{"banking": ["freeze_account"], "security": ["pin_change"]}"#);
}

fn banking(folder: &Path) {
    write(
        folder,
        "train.csv",
        "text,category\r\nWhere is it?,card_arrival\r\n\"Hi, where\r\nis \"\"it\"\"?\",card_arrival\r\nNo money,Refund?\r\n",
    );
    write(folder, "test.csv", "text,category\nno money ,Refund?\nStill nothing,card_arrival\n");
    write(folder, "categories.json", r#"["card_arrival", "Refund?"]"#);
}

#[test]
fn intents_are_read_with_names_in_words_and_domains() {
    let dir = tempfile::tempdir().unwrap();
    clinc(dir.path());
    let read = clinc150(dir.path()).unwrap();
    let of: Vec<_> = read.iter().map(|i| (i.id.as_str(), i.name.as_str(), i.domain.as_str())).collect();
    assert_eq!(of, [("freeze_account", "freeze account", "banking"), ("pin_change", "pin change", "security")]);
    assert_eq!(read[0].train, ["stop my card", "lock it"]);
    assert_eq!((read[0].test.len(), read[1].test[0].as_str()), (1, "change my pin"));
}

#[test]
fn utterances_of_the_test_part_are_not_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    banking(dir.path());
    let lacking = banking77(dir.path()).unwrap_err().to_string();
    assert!(lacking.contains("train.csv") && lacking.contains("`Refund?` has 0 utterances to train on"), "{lacking}");
    write(dir.path(), "test.csv", "text,category\nno money back,Refund?\nStill nothing,card_arrival\n");
    let read = banking77(dir.path()).unwrap();
    assert!(read.iter().all(|intent| intent.domain == BANKING77_DOMAIN));
    assert_eq!((read[0].name.as_str(), read[1].name.as_str()), ("refund", "card arrival"));
    assert_eq!(read[1].train, ["Where is it?", "Hi, where\r\nis \"it\"?"]);
}

#[test]
fn what_does_not_fit_is_refused_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let refused_clinc = |name: &str, text: &str, expected: &str| {
        clinc(dir.path());
        write(dir.path(), name, text);
        let message = clinc150(dir.path()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(expected), "{message}");
    };
    // An utterance whose intent has no domain is a fault of the file that it stands in.
    clinc(dir.path());
    write(dir.path(), "domains.json", r#"{"a": ["freeze_account"]}"#);
    let message = clinc150(dir.path()).unwrap_err().to_string();
    assert!(message.contains("data_full.json") && message.contains("`pin_change`, which is in no domain"), "{message}");
    for (text, expected) in
        [(r#"{"a": ["x"], "b": ["x"]}"#, "`x` is in `a` and in `b`"), (r#"{"a/b": ["x"]}"#, "no name of a domain"), ("{", "EOF")]
    {
        refused_clinc("domains.json", text, expected);
    }
    refused_clinc("data_full.json", r#"{"train": [["a", "freeze_account"]]}"#, "missing field `test`");
    refused_clinc("data_full.json", r#"{"train": [["", "freeze_account"]], "test": []}"#, "utterance 1 has 0 bytes");
    let long = format!(r#"{{"train": [["{}", "freeze_account"]], "test": []}}"#, "x".repeat(5_000));
    refused_clinc("data_full.json", &long, "5000 bytes");
    refused_clinc(
        "data_full.json",
        r#"{"train": [["a", "freeze_account"]], "test": []}"#,
        "`freeze_account` has 1 utterances to train on and 0",
    );
    let refused_banking = |name: &str, text: &str, expected: &str| {
        banking(dir.path());
        write(dir.path(), name, text);
        let message = banking77(dir.path()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(expected), "{message}");
    };
    refused_banking("train.csv", "category,text\n", "`text,category`");
    refused_banking("train.csv", "text,category\na,b,c\n", "line 2 has 3 columns");
    refused_banking("train.csv", "text,category\n\"a,card_arrival\n", "not closed");
    refused_banking("test.csv", "text,category\na,other\n", "`other`");
    refused_banking("categories.json", r#"["x", "x"]"#, "`x` twice");
    banking(dir.path());
    std::fs::write(dir.path().join("train.csv"), b"text,category\n\xff,card_arrival\n").unwrap();
    assert!(banking77(dir.path()).unwrap_err().to_string().contains("UTF-8"));
    std::fs::remove_file(dir.path().join("train.csv")).unwrap();
    assert!(banking77(dir.path()).unwrap_err().to_string().contains("train.csv"));
}

#[test]
fn what_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    clinc(dir.path());
    let file = std::fs::File::create(dir.path().join("data_full.json")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let message = clinc150(dir.path()).unwrap_err().to_string();
    assert!(message.contains("data_full.json") && message.contains("more than 67108864 bytes"), "{message}");
}
