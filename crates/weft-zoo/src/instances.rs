//! The architectures that the program brings along: the files of `architectures/`.

use crate::format::{architecture_from_toml, family_from_toml, read_architecture};
use crate::{Error, Result};
use std::path::Path;
use weft_core::Architecture;
use weft_core::families::Family;

/// Name and text of every file, in the order of the files.
const FILES: [(&str, &str); 15] = [
    ("cnn-5258", include_str!("../../../architectures/cnn-5258.toml")),
    ("gpt-2", include_str!("../../../architectures/gpt-2.toml")),
    ("hexells", include_str!("../../../architectures/hexells.toml")),
    ("minilm-l6", include_str!("../../../architectures/minilm-l6.toml")),
    ("mlp-64-16-10", include_str!("../../../architectures/mlp-64-16-10.toml")),
    ("mlp-784-16-10", include_str!("../../../architectures/mlp-784-16-10.toml")),
    ("mlp-784-32-32-10", include_str!("../../../architectures/mlp-784-32-32-10.toml")),
    ("openwakeword", include_str!("../../../architectures/openwakeword.toml")),
    ("resnet-18-28", include_str!("../../../architectures/resnet-18-28.toml")),
    ("resnet-18", include_str!("../../../architectures/resnet-18.toml")),
    ("resnet-20", include_str!("../../../architectures/resnet-20.toml")),
    ("stories260k", include_str!("../../../architectures/stories260k.toml")),
    ("vit-b-16", include_str!("../../../architectures/vit-b-16.toml")),
    ("vit-tiny", include_str!("../../../architectures/vit-tiny.toml")),
    ("zoo-cnn-2464", include_str!("../../../architectures/zoo-cnn-2464.toml")),
];

/// The names of the architectures that need no file.
#[must_use]
pub fn instance_names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// The text of the architecture file of that name.
#[must_use]
pub fn instance_text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Those that are declared as a family.
pub(crate) fn families() -> Vec<(&'static str, Family)> {
    let family = |&(name, text): &(&'static str, &'static str)| Some((name, family_from_toml(text, Path::new(name)).ok()??));
    FILES.iter().filter_map(family).collect()
}

/// An architecture by the path of a file, or by the name of one that needs no file.
///
/// # Errors
/// [`Error::UnknownArchitecture`] if it is neither, and those of [`read_architecture`].
///
/// # Examples
/// ```
/// use std::path::Path;
/// assert_eq!(weft_zoo::find_architecture(Path::new("hexells")).unwrap().num_parameters(), 5_868);
/// ```
pub fn find_architecture(name_or_path: &Path) -> Result<Architecture> {
    if name_or_path.exists() {
        return read_architecture(name_or_path);
    }
    match name_or_path.to_str().and_then(|name| Some((name, instance_text(name)?))) {
        Some((name, text)) => architecture_from_toml(text, Path::new(&format!("architectures/{name}.toml"))),
        None => Err(Error::UnknownArchitecture { name: name_or_path.to_owned(), known: instance_names().join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_folder_are_all_here_and_have_their_published_sizes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../architectures");
        let mut files: Vec<String> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, instance_names().iter().map(|name| format!("{name}.toml")).collect::<Vec<_>>());
        for (name, text) in FILES {
            assert_eq!(std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap(), text);
            assert_eq!(find_architecture(Path::new(name)).unwrap().name(), name);
        }
        let count = |name| find_architecture(Path::new(name)).unwrap().num_parameters();
        // Their authors' figures, or those of ours in `weft_core::families`; the wake words' from their files.
        assert_eq!([count("zoo-cnn-2464"), count("cnn-5258"), count("openwakeword")], [2_464, 5_258, 50_401]);
        assert_eq!([count("gpt-2"), count("minilm-l6"), count("stories260k")], [124_439_808, 22_713_216, 260_032]);
        assert_eq!([count("resnet-18"), count("vit-b-16")], [11_689_512 + 9_600, 86_567_656]);
        assert_eq!(count("resnet-18-28"), 11_172_810 + 9_600);
        assert!(find_architecture(Path::new("lenet")).unwrap_err().to_string().contains("zoo-cnn-2464"));
    }
}
