//! What a training batch is told of its conditions.

use super::*;
use std::sync::Arc;
use weft_core::{Condition, FieldType, Value};

/// A flow in training on codes that do not matter, with a field of each width.
fn trainer(dropout: f64) -> FlowTrainer {
    let conditions = (0..20u32).map(|i| {
        let task = Value::Classes(weft_core::ClassSet::new([i % 4, 4]).unwrap());
        let phrase = Value::Text(format!("phrase number {i}"));
        Condition::unknown().with("accuracy", 0.5 + f64::from(i)).with("task", task).with("phrase", phrase)
    });
    let fields = [
        FieldSpec::scalar("accuracy"),
        FieldSpec::new("task", FieldType::Classes { num_classes: Some(5) }),
        FieldSpec::new("phrase", FieldType::Text),
    ];
    let codes = Arc::new(Seed::new(1).normals(20 * 3));
    let data = CodeSet { code_len: 3, codes: codes.clone(), final_codes: codes, conditions: Arc::new(conditions.collect()) };
    let config = FlowConfig {
        width: 8,
        blocks: 1,
        steps: 10,
        batch_size: 4,
        learning_rate: 1e-3,
        warmup_steps: 1,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay: 0.9,
        conditions: fields.to_vec(),
        condition_dropout: dropout,
        residual_noise: false,
    };
    FlowTrainer::new(config, data, Seed::new(2), &Device::cpu()).unwrap()
}

#[test]
fn fields_are_dropped_whole() {
    let trainer = trainer(0.3);
    let widths: Vec<usize> = trainer.schema.widths().collect();
    assert_eq!(widths, [2, 6, weft_core::TEXT_LEN + 1]);
    let chosen: Vec<u32> = (0..400).map(|i| i % 20).collect();
    let rows = trainer.conditioning(&chosen, &vec![0.5; 400], Seed::new(3));
    let (time, len) = (2 * TIME_FREQUENCIES + 1, trainer.schema.encoded_len());
    let mut dropped = [0; 3];
    let mut patterns = std::collections::BTreeSet::new();
    for (row, &example) in rows.chunks_exact(time + len).zip(&chosen) {
        let (mut at, mut pattern) = (0, [false; 3]);
        for (field, &width) in widths.iter().enumerate() {
            let encoded = &trainer.encoded[example as usize * len + at..][..width];
            let found = &row[time + at..][..width];
            pattern[field] = found != encoded;
            assert!(!pattern[field] || found.iter().all(|&v| v == 0.0), "field {field} is dropped in part");
            dropped[field] += usize::from(pattern[field]);
            at += width;
        }
        patterns.insert(pattern);
    }
    // Alone with 0.3, and with all others with 0.3: 0.51 of the time.
    assert!(dropped.iter().all(|count| (160..250).contains(count)), "{dropped:?}");
    assert_eq!(patterns.len(), 8, "each field is dropped with and without the others");
}
