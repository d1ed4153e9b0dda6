//! Texts by a trained encoder, unpacked as `docs/guides/run-files.md` says.

use crate::data;
use weft::text::TextEncoder;

/// Against the network written out in another language in double precision: `goldens/text/minilm.py`.
#[test]
fn minilm_encodes_texts_as_its_authors_do() {
    let Some(folder) = data("minilm") else { return };
    let encoder = TextEncoder::open(&folder).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../../goldens/text/minilm.json")).unwrap();
    for entry in golden.as_array().unwrap() {
        let text = entry["text"].as_str().unwrap();
        let vector = encoder.encode(text).unwrap();
        let length = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        assert!(vector.len() == 384 && (length - 1.0).abs() < 1e-5, "{text}: {} of length {length}", vector.len());
        for (got, expected) in vector.iter().zip(entry["vector"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{text}: {got}, expected {expected}");
        }
        assert_eq!(encoder.encode(text).unwrap(), vector);
    }
    let product = |a: &str, b: &str| {
        let (a, b) = (encoder.encode(a).unwrap(), encoder.encode(b).unwrap());
        a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()
    };
    assert!(product("switch the lamp on", "turn on the light") > product("switch the lamp on", "what is for dinner") + 0.3);
}
