//! Bases of adapters, and the data of languages, as they are published.

use crate::data;
use std::path::Path;
use std::sync::Arc;
use weft::text::TextEncoder;
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, Base, LoraConfig, Sentences, TEMPERATURE, Windows};
use weft_zoo::{Hints, Vocabulary};

pub(crate) fn base(path: &Path) -> (Arc<Base>, Vec<f32>) {
    let source = weft_zoo::open_sources(path).expect("a sound base").remove(0);
    let inferred = weft_zoo::infer(&source, &Hints::default()).expect("a sound base");
    let row = inferred.binding.bind(&source, &inferred.architecture).expect("a sound base");
    (Arc::new(Base::new(&Arc::new(inferred.architecture), &row).expect("a sound base")), row)
}

fn adapters(base: &Arc<Base>) -> Adapters {
    let layout = AdapterLayout::new(base, &LoraConfig::query_and_value(base, 4)).expect("a layout of the base");
    Adapters::new(base.clone(), layout, &Device::cpu()).expect("a layout of the base")
}

/// The mean loss of stories260K on a story, by the fused passes and by the interpreter; and that the model knows its stories.
#[test]
fn stories_are_read_as_the_interpreter_reads_them() {
    let Some(folder) = data("stories260k") else { return };
    let vocabulary = Vocabulary::open(&folder.join("tok512.bin")).unwrap();
    let story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends.";
    let tokens = vocabulary.encode(story);
    assert_eq!(vocabulary.decode(&tokens), format!(" {story}").as_bytes());
    let (base, row) = base(&folder.join("stories260K.bin"));
    let adapters = adapters(&base);
    assert_eq!((vocabulary.len(), adapters.layout().num_parameters()), (512, 4_480));
    let task = AdapterTask::Text(Windows::new(std::slice::from_ref(&tokens), Vocabulary::START, tokens.len()).unwrap());
    let measured = adapters.measure(&vec![0.0; 4_480], &[&task]).unwrap()[0];
    let inputs: Vec<f32> = std::iter::once(Vocabulary::START).chain(tokens.iter().copied()).map(|id| id as f32).collect();
    let network = weft_net::with_tokens(base.architecture(), tokens.len()).unwrap();
    let logits = weft_net::interpret_f32(&network, (&row[..]).into(), &inputs[..tokens.len()]).unwrap();
    let loss = |(z, &id): (&[f32], &u32)| {
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(max - z[id as usize]) + z.iter().map(|z| f64::from(z - max).exp()).sum::<f64>().ln()
    };
    let expected = logits.chunks_exact(512).zip(&tokens).map(loss).sum::<f64>() / tokens.len() as f64;
    assert!((measured.loss - expected).abs() < 1e-4, "{} and {expected}", measured.loss);
    assert!(measured.loss < 1.5 && measured.bits_per_byte(story.len()) < 1.2, "{}", measured.loss);
}

/// Sentences by `MiniLM`, padded and at once, against the vectors that the text encoder makes one at a time.
#[test]
fn sentences_are_encoded_as_by_the_text_encoder() {
    let Some(folder) = data("minilm") else { return };
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let encoder = TextEncoder::open(&folder).unwrap();
    let (base, _) = base(&folder.join("model.safetensors"));
    let adapters = adapters(&base);
    let names = ["light", "weather", "music"];
    let sentences =
        ["switch the lamp on", "will it rain in the mountains tomorrow morning, or can we go for a walk?", "play some jazz"];
    let ids = |text: &&str| {
        let mut ids = tokenizer.encode(*text, true).unwrap().get_ids().to_vec();
        ids.truncate(ids.iter().rposition(|&id| id != 0).map_or(0, |last| last + 1));
        ids
    };
    let task = Sentences::new(names.iter().map(ids).collect(), sentences.iter().map(ids).collect(), vec![0, 1, 2]).unwrap();
    let measured = adapters.measure(&vec![0.0; adapters.layout().num_parameters()], &[&AdapterTask::Sentences(task)]).unwrap()[0];
    let vector = |text: &&str| encoder.encode(text).unwrap();
    let of_names: Vec<_> = names.iter().map(vector).collect();
    let mut expected = 0.0;
    for (label, sentence) in sentences.iter().map(vector).enumerate() {
        let z: Vec<f64> = of_names
            .iter()
            .map(|name| TEMPERATURE * name.iter().zip(&sentence).map(|(a, b)| f64::from(a * b)).sum::<f64>())
            .collect();
        expected += (z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label]) / 3.0;
    }
    assert!((measured.loss - expected).abs() < 1e-4, "{} and {expected}", measured.loss);
    assert_eq!(measured.accuracy, Some(1.0));
}

#[test]
fn languages() {
    let Some(file) = data("udhr2.zip") else { return };
    let languages = weft_zoo::data::languages(&file).unwrap();
    assert_eq!((languages.read.len(), languages.skipped.len()), (380, 8));
    assert!(languages.skipped.iter().any(|(id, reason)| id == "nku" && reason.starts_with('0')));
    let english = languages.read.iter().find(|language| language.id == "eng").unwrap();
    assert_eq!((english.title().as_str(), english.passages.len()), ("English", 63));
    let (train, test) = english.split(0.3).unwrap();
    assert!(train[1].starts_with("Article 1\nAll human beings") && test[test.len() - 1].starts_with("Article 30"));
    assert!(languages.read.iter().filter(|language| language.code == "aka").count() == 3);
}

#[test]
fn intents() {
    if let Some(folder) = data("clinc150") {
        let read = weft_zoo::data::clinc150(&folder).unwrap();
        let domains: std::collections::BTreeSet<&str> = read.iter().map(|intent| intent.domain.as_str()).collect();
        assert_eq!((read.len(), domains.len()), (150, 10));
        // Of 100 utterances each, two in all stand in the test part and are left out.
        let train: usize = read.iter().map(|intent| intent.train.len()).sum();
        assert!(train == 14_998 && read.iter().all(|intent| intent.test.len() == 30), "{train}");
        let freeze = read.iter().find(|intent| intent.id == "freeze_account").unwrap();
        assert_eq!((freeze.name.as_str(), freeze.domain.as_str()), ("freeze account", "banking"));
    }
    let Some(folder) = data("banking77") else { return };
    let read = weft_zoo::data::banking77(&folder).unwrap();
    assert!(read.len() == 77 && read.iter().all(|intent| intent.test.len() == 40));
    // Of 10,003 utterances, those that stand in the test part are left out.
    let train: usize = read.iter().map(|intent| intent.train.len()).sum();
    assert!((9_990..10_003).contains(&train), "{train}");
    assert!(read.iter().any(|intent| intent.name == "reverted card payment"));
}
