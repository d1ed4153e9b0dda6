//! Real files from the folder that the environment variable `WEFT_DATA` names; without it these tests say that they
//! were skipped, and pass.

use std::path::PathBuf;
use weft_zoo::{Error, Source, SourceFormat, open_sources};

/// A file or folder of the data folder, or `None` with a word about it.
fn data(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("WEFT_DATA").filter(|folder| !folder.is_empty()).map(|folder| PathBuf::from(folder).join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        // Straight to stderr: the test harness shows it even of tests that pass.
        let note = format!("skipped: WEFT_DATA names no folder with `{name}`\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
    }
    found
}

fn close(got: f32, want: f32) {
    assert!((got - want).abs() <= 1e-6 * want.abs(), "{got} {want}");
}

/// The figures come from NumPy, which read the file by the format's own list.
#[test]
fn stories260k() {
    let Some(folder) = data("stories260k") else { return };
    let source = open_sources(&folder.join("stories260K.bin")).unwrap().remove(0);
    assert_eq!(source.format(), SourceFormat::Llama2c);
    assert_eq!(source.tensors().len(), 2 + 5 * 9);
    let values: usize = source.tensors().values().map(weft_zoo::SourceTensor::num_values).sum();
    assert_eq!(values, 264_128 - 2 * 512 * 4);
    let check = |name: &str, shape: &[usize], at: usize, want: f32| {
        assert_eq!(source.tensors()[name].shape, shape, "{name}");
        close(source.read(name).unwrap()[at], want);
    };
    check("model.embed_tokens.weight", &[512, 64], 0, -0.294_748_78);
    check("model.layers.0.input_layernorm.weight", &[64], 0, 0.972_242_95);
    check("model.layers.4.self_attn.q_proj.weight", &[64, 64], 64 * 64 - 1, -0.189_013_82);
    check("model.layers.3.self_attn.k_proj.weight", &[32, 64], 64 + 2, 0.085_268_78);
    check("model.layers.4.self_attn.v_proj.weight", &[32, 64], 32 * 64 - 1, 0.088_369_12);
    check("model.layers.4.self_attn.o_proj.weight", &[64, 64], 64 * 64 - 1, 0.006_203_591_4);
    check("model.layers.0.post_attention_layernorm.weight", &[64], 0, 0.736_777_07);
    check("model.layers.0.mlp.gate_proj.weight", &[172, 64], 0, 0.213_686_66);
    check("model.layers.3.mlp.down_proj.weight", &[64, 172], 172 + 2, -0.113_681_436);
    check("model.layers.4.mlp.up_proj.weight", &[172, 64], 172 * 64 - 1, 0.106_031_94);
    check("model.norm.weight", &[64], 63, 1.707_776_9);
    assert_eq!((&*source.metadata()["n_kv_heads"], &*source.metadata()["rope"]), ("4", "interleaved"));
    let tokens = open_sources(&folder.join("tok512.bin")).unwrap_err();
    assert!(matches!(tokens, Error::UnknownFormat { .. }) && tokens.to_string().contains("tok512.bin"), "{tokens}");
}

/// The figures come from NumPy; run as an automaton, member 0 draws dots there.
#[test]
fn hexells() {
    let Some(file) = data("hexells_models.json") else { return };
    let sources = open_sources(&file).unwrap();
    assert_eq!(sources.len(), 173);
    for source in &sources {
        let values: usize = source.tensors().values().map(weft_zoo::SourceTensor::num_values).sum();
        assert_eq!((source.tensors().len(), values), (4, 5868));
        assert_eq!(source.first_non_finite().unwrap(), None);
    }
    // Weights by input and output, as the file has them; the last row is the bias.
    let weight = |source: &Source, layer: usize, input: usize, output: usize| {
        let inputs = [48, 96][layer];
        match source.read(&format!("layers.{layer}.{}", if input == inputs { "bias" } else { "weight" })).unwrap() {
            bias if input == inputs => bias[output],
            weight => weight[output * inputs + input],
        }
    };
    let check = |member: usize, name: &str, want: [f32; 6]| {
        let source = &sources[member];
        assert_eq!(source.member(), Some(name));
        let places = [(0, 3, 5), (0, 47, 95), (0, 48, 7), (1, 95, 11), (1, 0, 1), (1, 96, 2)];
        for ((layer, input, output), want) in places.into_iter().zip(want) {
            close(weight(source, layer, input, output), want);
        }
    };
    let dots = [-0.199_283_58, 0.259_935_1, 0.051_987_022, 0.108_258_14, -0.061_861_8, 0.097_947_84];
    check(0, "texture/models/dots-mondrian", dots);
    let second_row = [-0.207_948_09, 0.077_980_53, 0.017_329_007, -0.108_258_14, -0.097_947_84, 0.082_482_4];
    check(21, "texture/models/mixed4b_1x1_14-mondrian", second_row);
    check(172, "mixed4d_313", [-0.225_277_08, 0.242_606_09, 0.069_316_03, 0.144_344_2, -0.025_775_75, 0.030_930_9]);
}
