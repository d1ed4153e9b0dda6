//! Names with underscores for dots, as kohya's scripts write them: `lora_unet_mid_block_attentions_0_proj_in`.
//!
//! The way out is plain, the way back is not: `to_q` has an underscore of its own. A base's list of modules decides it
//! exactly. Without one, words that have underscores in diffusers' and in the original networks are known here, and a
//! name that consists of others is refused.
//!
//! # References
//! kohya-ss/sd-scripts, `networks/lora.py`: `LoRANetwork.LORA_PREFIX_UNET`, `LORA_PREFIX_TEXT_ENCODER`, and
//! `lora_name = prefix + "." + name + "." + child_name` with dots replaced by underscores.

use super::base::BaseModel;

/// Prefixes of flat names and the components of diffusers' pipelines that they stand for, the longer first.
pub(super) const COMPONENTS: [(&str, &str); 6] = [
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("lora_te_", "text_encoder"),
    ("lora_transformer_", "transformer"),
];

/// Words with an underscore of their own.
const WORDS: [&str; 60] = [
    "add_embedding",
    "add_k_proj",
    "add_q_proj",
    "add_v_proj",
    "attn_1",
    "context_embedder",
    "conv_in",
    "conv_out",
    "conv_shortcut",
    "double_blocks",
    "down_blocks",
    "emb_layers",
    "feed_forward",
    "ff_context",
    "guidance_in",
    "img_attn",
    "img_in",
    "img_mlp",
    "img_mod",
    "in_layers",
    "input_blocks",
    "k_proj",
    "label_emb",
    "linear_1",
    "linear_2",
    "mid_block",
    "middle_block",
    "norm_out",
    "o_proj",
    "out_layers",
    "out_proj",
    "output_blocks",
    "pos_embed",
    "proj_in",
    "proj_mlp",
    "proj_out",
    "q_proj",
    "self_attn",
    "single_blocks",
    "single_transformer_blocks",
    "skip_connection",
    "text_model",
    "time_emb_proj",
    "time_embed",
    "time_embedding",
    "time_in",
    "to_add_out",
    "to_k",
    "to_out",
    "to_q",
    "to_v",
    "transformer_blocks",
    "txt_attn",
    "txt_in",
    "txt_mlp",
    "txt_mod",
    "up_blocks",
    "v_proj",
    "vector_in",
    "x_embedder",
];

/// Words without one.
const PLAIN: [&str; 30] = [
    "attentions",
    "attn",
    "attn1",
    "attn2",
    "conv",
    "conv1",
    "conv2",
    "downsamplers",
    "encoder",
    "fc1",
    "fc2",
    "ff",
    "fc",
    "layers",
    "lin",
    "linear",
    "linear1",
    "linear2",
    "mlp",
    "modulation",
    "net",
    "norm",
    "op",
    "out",
    "proj",
    "qkv",
    "resnets",
    "transformer",
    "upsamplers",
    "time",
];

/// Whether a tensor's name is one of kohya's.
pub(super) fn is_flat(name: &str) -> bool {
    COMPONENTS.iter().any(|(prefix, _)| name.starts_with(prefix))
}

/// The component of a flat name, and the rest.
pub(super) fn split(name: &str) -> Option<(&'static str, &str)> {
    COMPONENTS.iter().find_map(|(prefix, component)| Some((*component, name.strip_prefix(prefix)?)))
}

/// A flat name in place of a module's, with the prefix of its component.
pub(super) fn flatten(module: &str, two_encoders: bool) -> Option<String> {
    let (component, rest) = module.split_once('.')?;
    let fits = |prefix: &str| match prefix {
        "lora_te_" => !two_encoders,
        "lora_te1_" => two_encoders,
        _ => true,
    };
    let (prefix, _) = COMPONENTS.iter().find(|(prefix, of)| *of == component && fits(prefix))?;
    Some(format!("{prefix}{}", rest.replace('.', "_")))
}

/// The module of a flat name without its prefix, from the base's modules if there is one, else from known words.
///
/// # Errors
/// Why it cannot be told.
pub(super) fn module(component: &str, rest: &str, base: Option<&BaseModel>) -> Result<String, String> {
    if let Some(base) = base {
        let flat = |module: &str| module.strip_prefix(component).and_then(|m| m.strip_prefix('.')).map(|m| m.replace('.', "_"));
        let of_part = base.modules().keys().filter(|module| flat(module).as_deref() == Some(rest)).cloned();
        // The base may be that part of a pipeline alone.
        let alone = base.modules().keys().filter(|module| module.replace('.', "_") == rest);
        let alone = alone.map(|module| format!("{component}.{module}"));
        let found: Vec<String> = of_part.collect();
        let found = if found.is_empty() { alone.collect() } else { found };
        return match &found[..] {
            [module] => Ok(module.clone()),
            [one, other, ..] => Err(format!("it could be `{one}` or `{other}` of the base")),
            [] => Err(format!("the base `{}` has no such module", base.name())),
        };
    }
    let words: Vec<&str> = rest.split('_').collect();
    let (mut at, mut parts) = (0, vec![component.to_owned()]);
    while at < words.len() {
        // The longest word that is known.
        let longest = (1..=3.min(words.len() - at)).rev().map(|len| (len, words[at..at + len].join("_"))).find(|(len, word)| {
            let number = *len == 1 && !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            number || WORDS.contains(&word.as_str()) || PLAIN.contains(&word.as_str())
        });
        let Some((len, word)) = longest else {
            return Err(format!(
                "`{}` is no known word, so dots and underscores cannot be told apart; `--base` decides it",
                words[at]
            ));
        };
        parts.push(word);
        at += len;
    }
    Ok(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_there_and_back() {
        for (flat, expected) in [
            (
                "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q",
                "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q",
            ),
            (
                "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_attn2_to_out_0",
                "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0",
            ),
            (
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
                "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
            ),
            ("lora_unet_mid_block_resnets_0_time_emb_proj", "unet.mid_block.resnets.0.time_emb_proj"),
            ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k", "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_k"),
            (
                "lora_te_text_model_encoder_layers_11_self_attn_out_proj",
                "text_encoder.text_model.encoder.layers.11.self_attn.out_proj",
            ),
            ("lora_te2_text_model_encoder_layers_3_mlp_fc1", "text_encoder_2.text_model.encoder.layers.3.mlp.fc1"),
        ] {
            let (component, rest) = split(flat).unwrap();
            assert_eq!(module(component, rest, None).as_deref(), Ok(expected));
            assert_eq!(flatten(expected, flat.contains("te2")).as_deref(), Some(flat));
        }
        assert_eq!(flatten("text_encoder.a.b", true).as_deref(), Some("lora_te1_a_b"));
        assert_eq!(flatten("model.layers.0.q", false), None);
        let unknown = module("unet", "down_blocks_0_strange_part", None).unwrap_err();
        assert!(unknown.contains("`strange`") && unknown.contains("--base"), "{unknown}");
    }
}
