//! Under which licence a file stands, and whether that is allowed.
//!
//! A licence's text is recognized by sentences that no other licence has, after case and white space are made alike.
//! What is not recognized is `unknown`: a guess could give away rights that nobody has.

use super::find::is_licence;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What is known of a file that names no licence.
pub(super) const UNKNOWN: &str = "unknown";

/// No more of a licence file is read.
const MAX_BYTES: u64 = 256 << 10;

/// SPDX identifiers with the words that a text must hold, all of them; the first that fits is taken, so that a licence
/// whose words are a part of another's comes after it.
const TEXTS: [(&str, &[&str]); 20] = [
    ("AGPL-3.0-only", &["gnu affero general public license version 3, 19 november 2007"]),
    ("LGPL-3.0-only", &["gnu lesser general public license version 3, 29 june 2007"]),
    ("LGPL-2.1-only", &["gnu lesser general public license version 2.1, february 1999"]),
    ("GPL-3.0-only", &["gnu general public license version 3, 29 june 2007"]),
    ("GPL-2.0-only", &["gnu general public license version 2, june 1991"]),
    ("Apache-2.0", &["apache license version 2.0, january 2004"]),
    ("MPL-2.0", &["mozilla public license version 2.0"]),
    ("CC0-1.0", &["cc0 1.0 universal"]),
    ("CC-BY-NC-SA-4.0", &["attribution-noncommercial-sharealike 4.0 international"]),
    ("CC-BY-NC-ND-4.0", &["attribution-noncommercial-noderivatives 4.0 international"]),
    ("CC-BY-NC-4.0", &["attribution-noncommercial 4.0 international"]),
    ("CC-BY-SA-4.0", &["attribution-sharealike 4.0 international"]),
    ("CC-BY-ND-4.0", &["attribution-noderivatives 4.0 international"]),
    ("CC-BY-4.0", &["creative commons attribution 4.0 international"]),
    ("CC-BY-4.0", &["attribution 4.0 international", "creative commons corporation"]),
    ("BSD-3-Clause", &["redistribution and use in source and binary forms", "neither the name of"]),
    ("BSD-2-Clause", &["redistribution and use in source and binary forms", "this list of conditions"]),
    ("ISC", &["permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"]),
    ("Unlicense", &["this is free and unencumbered software released into the public domain"]),
    (
        "MIT",
        &["permission is hereby granted, free of charge, to any person obtaining a copy", "the software is provided \"as is\""],
    ),
];

/// Looks for licence files, and remembers folder by folder what was found.
#[derive(Debug, Default)]
pub(super) struct Licences {
    folders: BTreeMap<PathBuf, Option<String>>,
}

impl Licences {
    /// The licence of the nearest licence file beside the file or above it, no further than `root`.
    pub(super) fn beside(&mut self, path: &Path, root: &Path) -> Option<String> {
        let mut folder = crate::atomic::parent_of(path);
        loop {
            let found = self.folders.entry(folder.to_owned()).or_insert_with_key(|folder| in_folder(folder));
            if found.is_some() || folder == root {
                return found.clone();
            }
            // A file that was named without a folder has the root `.`, which is no ancestor by name.
            folder = folder.parent().filter(|above| above.starts_with(root))?;
        }
    }
}

/// The licence of the first licence file of a folder, by name; `unknown` if its text is no known one.
pub(crate) fn in_folder(folder: &Path) -> Option<String> {
    let items = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let mut files: Vec<PathBuf> = items.map(|item| item.path()).filter(|path| is_licence(path) && path.is_file()).collect();
    files.sort();
    let texts: Vec<&'static str> = files.iter().filter_map(|path| recognize(&read(path)?)).collect();
    match texts.as_slice() {
        [] if files.is_empty() => None,
        [] => Some(UNKNOWN.to_owned()),
        [one] => Some((*one).to_owned()),
        // Which of them holds for the networks, the files do not say: all do.
        several => Some(several.join(" AND ")),
    }
}

fn read(path: &Path) -> Option<String> {
    // Opening a pipe would wait for one that writes.
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The SPDX identifier of a licence's text.
fn recognize(text: &str) -> Option<&'static str> {
    let plain = |c: char| if matches!(c, '“' | '”') { '"' } else { c };
    let text: String = text.to_lowercase().chars().map(plain).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    TEXTS.iter().find(|(_, words)| words.iter().all(|words| text.contains(words))).map(|(name, _)| *name)
}

/// Whether an SPDX expression is satisfied by the allowed licences: one side of an `OR`, both of an `AND`.
///
/// An expression with parentheses is allowed only if it stands in the list as it is.
pub(super) fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let listed = |licence: &str| allowed.iter().any(|allowed| allowed.trim().eq_ignore_ascii_case(licence.trim()));
    if listed(expression) || expression.contains(['(', ')']) {
        return listed(expression);
    }
    expression.split(" OR ").any(|alternative| alternative.split(" AND ").all(listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_recognized_by_what_is_theirs_alone() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(recognize(text), expected, "{text}");
        check(
            "MIT License\n\nPermission is hereby granted, free\nof charge, to any person obtaining a copy … THE SOFTWARE IS \
               PROVIDED “AS IS”",
            Some("MIT"),
        );
        check(
            "                                 Apache License\n                           Version 2.0, January 2004",
            Some("Apache-2.0"),
        );
        let bsd = "Redistribution and use in source and binary forms … this list of conditions …";
        check(bsd, Some("BSD-2-Clause"));
        check(&format!("{bsd} Neither the name of the copyright holder"), Some("BSD-3-Clause"));
        check("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International Public License", Some("CC-BY-NC-SA-4.0"));
        check("Attribution 4.0 International\n\n====\n\nCreative Commons Corporation (\"Creative Commons\")", Some("CC-BY-4.0"));
        check("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007", Some("GPL-3.0-only"));
        check(
            "GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007 … GNU General Public License",
            Some("AGPL-3.0-only"),
        );
        check("You may use this if you are nice.", None);
    }

    #[test]
    fn expressions_are_allowed_by_their_parts() {
        let allowed = ["MIT".to_owned(), "apache-2.0".to_owned()];
        let yes = ["MIT", "mit", "Apache-2.0", "GPL-3.0-only OR MIT", "MIT AND Apache-2.0", "ISC AND MIT OR Apache-2.0"];
        let no = ["unknown", "MIT AND ISC", "", "(MIT)", "MIT WITH exception", "(MIT OR ISC) AND Apache-2.0"];
        assert!(yes.iter().all(|expression| is_allowed(expression, &allowed)));
        assert!(!no.iter().any(|expression| is_allowed(expression, &allowed)));
    }
}
