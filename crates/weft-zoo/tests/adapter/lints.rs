//! What lint says where it depends on the base or on a version; `tests/python/test_engines.py` asks the engines.

use super::{adapter, linear, write};
use std::collections::BTreeMap;
use weft_zoo::AdapterKind;
use weft_zoo::adapter::{AdapterProfile, AdapterUpdate, AdapterWeights, BaseModel, LintOptions, Runtime, Severity, lint};

/// Severities and rules for a folder of PEFT.
fn found(weights: &AdapterWeights, runtime: Runtime, options: &LintOptions<'_>) -> Vec<(Severity, &'static str)> {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    write(weights, AdapterProfile::Peft, None, &folder).unwrap();
    let file = AdapterWeights::read(&folder, None).unwrap();
    lint(&file, &[runtime], options).unwrap().into_iter().map(|finding| (finding.severity, finding.rule)).collect()
}

#[test]
fn vllm_reads_patterns_from_a_version_on() {
    let name = |leaf: &str| format!("model.layers.0.self_attn.{leaf}_proj");
    let of =
        |rank: usize, scaling: f64| adapter(vec![linear(&name("q"), [4, 2, 3], 2.0), linear(&name("v"), [4, rank, 3], scaling)]);
    let check = |weights: &AdapterWeights, version: Option<[u32; 2]>, expected: &[(Severity, &str)]| {
        let options = LintOptions { vllm_version: version, ..LintOptions::default() };
        assert_eq!(found(weights, Runtime::Vllm, &options), expected, "{version:?}");
    };
    let (silent, depends) = (Severity::Silent, Severity::Depends);
    check(&of(2, 0.5), None, &[(depends, "scaling")]);
    check(&of(2, 0.5), Some([0, 31]), &[(silent, "scaling")]);
    check(&of(1, 0.5), Some([0, 31]), &[(silent, "scaling"), (depends, "rank-pattern")]);
    for version in [[0, 32], [0, 33], [1, 0]] {
        check(&of(1, 0.5), Some(version), &[]);
    }
    check(&of(2, 2.0), Some([0, 31]), &[]);
}

#[test]
fn llama_cpp_has_no_update_of_an_embedding_that_is_the_output_layer() {
    let table = AdapterUpdate { kind: AdapterKind::Embedding, ..linear("model.embed_tokens", [4, 1, 3], 1.0) };
    let embedding = adapter(vec![table]);
    let base = |modules: &[&str]| {
        let modules: BTreeMap<_, _> = modules.iter().map(|name| ((*name).to_owned(), vec![3, 4])).collect();
        BaseModel::of_modules("org/base", modules)
    };
    let check = |base: Option<&BaseModel>, expected: &[(Severity, &str)]| {
        let options = LintOptions { base, ..LintOptions::default() };
        assert_eq!(found(&embedding, Runtime::LlamaCpp, &options), expected);
    };
    check(None, &[]);
    check(Some(&base(&["model.embed_tokens", "lm_head"])), &[]);
    check(Some(&base(&["model.embed_tokens"])), &[(Severity::Refused, "tied-embedding")]);
    let tied = serde_json::json!({ "tie_word_embeddings": true }).as_object().unwrap().clone();
    let base = base(&["model.embed_tokens", "lm_head"]).with_config(tied);
    check(Some(&base), &[(Severity::Refused, "tied-embedding")]);
}
