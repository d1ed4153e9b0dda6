//! What the program prints where, and how it exits.

use crate::outcome;

#[test]
fn refusals_say_what_why_and_what_to_do() {
    let (code, out, err) = outcome(&["run", "nowhere.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines[0], "error: cannot read the run file `nowhere.toml`");
    assert!(lines[1].starts_with("Caused by: ") && lines[2].starts_with("hint: "), "{err}");

    let (code, _, err) = outcome(&["zoo", "ls", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: `nowhere` is not a zoo"), "{err}");

    let (code, _, err) = outcome(&["quickstart", "--set", "run.sede=1"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        err,
        "error: `--set run.sede=1`: unknown key `sede`\nhint: did you mean `seed`? keys here: `name`, `seed`, `output`, `device`, `memory`\n"
    );
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [&["trian"][..], &["run"], &["run", "x.toml", "--until", "lunch"], &["zoo", "ls", "x", "--split", "both"]] {
        let (code, out, err) = outcome(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains("Usage") || err.contains("possible values"), "{err}");
    }
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let (code, _, err) = outcome(&["quickstart", "--device", "gpu"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("`gpu` is not a device; known: auto, cpu, cuda:0"), "{err}");
}

#[test]
fn data_go_to_stdout_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let output = output.to_str().expect("a UTF-8 path");
    let small = [
        "zoo.train.runs=4",
        "zoo.train.held-out-runs=2",
        "zoo.train.recipe.duration.epochs=1",
        "zoo.train.recipe.snapshots.steps=[]",
    ];
    let run_file = dir.path().join("run.toml");
    std::fs::write(&run_file, weft::config::QUICKSTART).expect("the folder can be written");
    let mut arguments = vec!["zoo", "train", run_file.to_str().expect("a UTF-8 path"), "-q", "--format", "json", "--device", "cpu"];
    let output_override = format!("run.output={output:?}");
    for set in small.iter().copied().chain([output_override.as_str()]) {
        arguments.extend(["--set", set]);
    }
    let (code, out, err) = outcome(&arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let value: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!(value["stages"][0]["stage"], "zoo");

    let zoo = format!("{output}/zoo");
    let (code, out, _) = outcome(&["zoo", "ls", &zoo, "--final", "--split", "test"]);
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}");
    let digest = out.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("a digest").to_owned();
    let (code, out, _) = outcome(&["zoo", "show", &zoo, &digest]);
    assert!(code == Some(0) && out.contains("validation-accuracy") && out.contains("CC-BY-4.0"), "{out}");
    assert!(outcome(&["zoo", "stats", &zoo]).1.contains("6 checkpoints of 6 runs"));
    let (code, out, err) = outcome(&["zoo", "stats", &zoo, "--data", "digits", "--format", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let stats: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!(stats["structure"]["num_sampled"], 4, "{out}");
    assert!(stats["structure"]["canonical"]["barrier"]["mean"].is_number() && stats["checkpoints"] == 6);
    assert!(outcome(&["zoo", "stats", &zoo]).1.contains("effective rank, canonical"));
    assert!(!outcome(&["zoo", "stats", &zoo, "--sample", "0"]).1.contains("effective rank"));
    assert!(outcome(&["zoo", "verify", &zoo]).1.ends_with("clean\n"));

    // One flipped bit is found by digest, named, and fails the command.
    let shard = std::fs::read_dir(format!("{zoo}/shards")).expect("shards").next().expect("a shard").expect("an entry").path();
    let mut bytes = std::fs::read(&shard).expect("the shard");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&shard, bytes).expect("the shard");
    let (code, out, _) = outcome(&["zoo", "verify", &zoo]);
    let name = shard.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(code == Some(1) && out.contains("damaged") && out.contains(&name), "{out}");
}
