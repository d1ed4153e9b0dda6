//! Which name a tensor has where: tables of patterns, one file a family under `names/`.
//!
//! A line is `STORED  DECLARED`: a pattern of names in files, and the names that the family's graph declares.
//!
//! - `{i}`, `{j}`, `{k}` stand for numbers, and `{i+1}` for the next one; `*` for the last part of a name.
//! - `(model.)` may be there or not.
//! - `^T` behind a stored name: the file has the matrix transposed.
//! - `a + b + c`: the file has these one below the other, as many rows each.
//! - `a = b`: it is `a` where the graph has that, and otherwise must repeat `b` bit for bit: a tied output layer.
//!
//! `[name]` begins the table of one way to name a family's tensors.

/// The tables, by family.
const TABLES: [(&str, &str); 5] = [
    ("resnet", include_str!("names/resnet.txt")),
    ("vit", include_str!("names/vit.txt")),
    ("bert", include_str!("names/bert.txt")),
    ("gpt", include_str!("names/gpt.txt")),
    ("llama", include_str!("names/llama.txt")),
];

/// One way to name the tensors of a family.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    /// The family.
    pub(crate) family: &'static str,
    /// Whose way it is.
    pub(crate) name: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    stored: &'static str,
    transposed: bool,
    declared: Vec<&'static str>,
    repeats: Option<&'static str>,
}

/// What a stored tensor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// Whether the file has it transposed.
    pub(crate) transposed: bool,
    /// The declared tensors that lie in it, one below the other.
    pub(crate) declared: Vec<String>,
    /// The declared tensor that it repeats where the graph has none of its own.
    pub(crate) repeats: Option<String>,
}

impl Meaning {
    /// A tensor that is declared as it is stored.
    pub(crate) fn itself(name: &str) -> Self {
        Self { transposed: false, declared: vec![name.to_owned()], repeats: None }
    }
}

impl Naming {
    /// Every naming of every family.
    pub(crate) fn all() -> Vec<Self> {
        TABLES.iter().flat_map(|&(family, text)| parse(family, text)).collect()
    }

    /// What a tensor of this name is, if the naming knows it.
    pub(crate) fn meaning(&self, stored: &str) -> Option<Meaning> {
        self.rules.iter().find_map(|rule| {
            let variables = matching(rule.stored, stored)?;
            let declared = rule.declared.iter().map(|pattern| variables.fill(pattern)).collect::<Option<_>>()?;
            let repeats = rule.repeats.map(|pattern| variables.fill(pattern));
            Some(Meaning { transposed: rule.transposed, declared, repeats: repeats.flatten() })
        })
    }
}

fn parse(family: &'static str, text: &'static str) -> Vec<Naming> {
    let mut namings: Vec<Naming> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            namings.push(Naming { family, name, rules: Vec::new() });
            continue;
        }
        let Some((stored, declared)) = line.split_once(char::is_whitespace) else { continue };
        let (declared, repeats) = match declared.split_once('=') {
            Some((declared, repeats)) => (declared, Some(repeats.trim())),
            None => (declared, None),
        };
        let bare = stored.strip_suffix("^T");
        let rule = Rule {
            stored: bare.unwrap_or(stored),
            transposed: bare.is_some(),
            declared: declared.split(" + ").map(str::trim).collect(),
            repeats,
        };
        if let Some(naming) = namings.last_mut() {
            naming.rules.push(rule);
        }
    }
    namings
}

/// What the parts of a pattern stand for in one name.
#[derive(Debug, Default)]
struct Variables<'a> {
    numbers: Vec<(char, usize)>,
    last: &'a str,
}

impl Variables<'_> {
    /// A pattern with the values in their places; none if a number does not fit.
    fn fill(&self, pattern: &str) -> Option<String> {
        let mut filled = String::new();
        let mut rest = pattern;
        while let Some(at) = rest.find(['{', '*']) {
            filled.push_str(&rest[..at]);
            if let Some(after) = rest[at..].strip_prefix('*') {
                filled.push_str(self.last);
                rest = after;
                continue;
            }
            let (variable, after) = rest[at + 1..].split_once('}')?;
            let (letter, next) = variable.strip_suffix("+1").map_or((variable, 0), |letter| (letter, 1));
            let (_, value) = self.numbers.iter().find(|(known, _)| letter.starts_with(*known))?;
            filled.push_str(&value.checked_add(next)?.to_string());
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }
}

/// Matches a whole name.
fn matching<'a>(pattern: &str, name: &'a str) -> Option<Variables<'a>> {
    match pattern.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((optional, rest)) => {
            let without = || literal_matching(rest, name);
            name.strip_prefix(optional).and_then(|name| literal_matching(rest, name)).or_else(without)
        }
        None => literal_matching(pattern, name),
    }
}

/// The same, without an optional start.
fn literal_matching<'a>(mut pattern: &str, mut name: &'a str) -> Option<Variables<'a>> {
    let mut variables = Variables::default();
    while let Some(at) = pattern.find(['{', '*']) {
        name = name.strip_prefix(&pattern[..at])?;
        if pattern[at..].starts_with('*') {
            variables.last = name;
            return (!name.is_empty() && !name.contains('.')).then_some(variables);
        }
        let (letter, after) = pattern[at + 1..].split_once('}')?;
        let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        // A number as no program writes it, such as `01`, would not come back as it was.
        let number: usize = name[..digits].parse().ok().filter(|number: &usize| number.to_string() == name[..digits])?;
        variables.numbers.push((letter.chars().next()?, number));
        (pattern, name) = (after, &name[digits..]);
    }
    (pattern == name).then_some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(family: &str, naming: &str, stored: &str) -> Option<Meaning> {
        Naming::all().into_iter().find(|n| n.family == family && n.name == naming).unwrap().meaning(stored)
    }

    #[test]
    fn the_tables_are_whole() {
        let namings = Naming::all();
        assert_eq!(namings.len(), 11);
        for naming in &namings {
            assert!(weft_core::families::Family::NAMES.contains(&naming.family) && naming.rules.len() >= 7, "{naming:?}");
            let sound = |text: &str| !text.contains([' ', '^', '[', '=']) && text.matches('{').count() == text.matches('}').count();
            for rule in &naming.rules {
                assert!(sound(rule.stored) && rule.declared.iter().copied().all(sound), "{rule:?}");
                assert!(matches!(rule.declared.len(), 1 | 3) && rule.repeats.is_none_or(sound), "{rule:?}");
            }
        }
    }

    #[test]
    fn names_become_others() {
        let check = |family: &str, naming: &str, stored: &str, expected: &[&str]| {
            let declared = meaning(family, naming, stored).map(|m| m.declared).unwrap_or_default();
            assert_eq!(declared, expected, "{stored}");
        };
        check("resnet", "torchvision", "layer3.11.downsample.1.running_var", &["layer3.11.downsample.1.running_var"]);
        check("resnet", "torchvision", "linear.bias", &["fc.bias"]);
        check("resnet", "hugging-face", "resnet.encoder.stages.0.layers.1.layer.0.normalization.bias", &["layer1.1.bn1.bias"]);
        let qkv = ["blocks.10.attn.q.bias", "blocks.10.attn.k.bias", "blocks.10.attn.v.bias"];
        check("vit", "timm", "blocks.10.attn.qkv.bias", &qkv);
        check("vit", "torchvision", "encoder.layers.encoder_layer_10.self_attention.in_proj_bias", &qkv);
        check("bert", "hugging-face", "bert.encoder.layer.0.output.LayerNorm.gamma", &["encoder.layer.0.output.LayerNorm.weight"]);
        check("bert", "hugging-face", "encoder.layer.0.output.dense.bias", &["encoder.layer.0.output.dense.bias"]);
        for stranger in ["blocks.x.norm1.weight", "blocks.01.norm1.weight", "blocks..norm1.weight", "norm.a.b", "norm.", "norm", ""]
        {
            check("vit", "timm", stranger, &[]);
        }
        check("vit", "timm", "blocks.99999999999999999999999.norm1.weight", &[]);
        check("resnet", "hugging-face", "encoder.stages.18446744073709551615.layers.0.layer.0.convolution.weight", &[]);
        assert!(meaning("gpt", "hugging-face", "transformer.h.0.attn.c_attn.weight").unwrap().transposed);
        assert!(!meaning("gpt", "nanogpt", "transformer.h.0.attn.c_attn.weight").unwrap().transposed);
        assert_eq!(meaning("gpt", "nanogpt", "lm_head.weight").unwrap().repeats.as_deref(), Some("wte.weight"));
    }
}
