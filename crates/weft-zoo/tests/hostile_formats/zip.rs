//! Zip archives: npz, and what npz and `PyTorch` have in common.

use crate::make::{Entry, fault, npy, open, truncations, zip, zip_shifted};
use weft_zoo::{Error, SourceFault};

fn entries() -> Vec<Entry> {
    let data: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    vec![Entry::stored("a.npy", &npy("(2, 3)", &data)), Entry::deflated("b.npy", &npy("(6,)", &data))]
}

/// Asserts that an archive is refused for its structure, with words about it.
fn malformed(bytes: &[u8], expected: &str) {
    let fault = fault("a.npz", bytes);
    assert!(matches!(fault, SourceFault::Malformed { .. }) && fault.to_string().contains(expected), "{fault}");
}

#[test]
fn sound_and_cut() {
    let source = open("a.npz", &zip(&entries())).unwrap().remove(0);
    assert_eq!(source.read("a").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(source.read("a").unwrap(), source.read("b").unwrap());
    truncations("a.npz", &zip(&entries()));
}

#[test]
fn directories_that_lie() {
    let [a, b] = entries().try_into().ok().unwrap();
    let twice = zip(&[a.clone(), Entry { name: "a.npy".to_owned(), ..b.clone() }]);
    assert_eq!(fault("a.npz", &twice), SourceFault::Duplicate { name: "a.npy".to_owned() });
    // The second entry lies within the first, which is an archive itself.
    let inner = zip(std::slice::from_ref(&b));
    let mut outer = Entry::stored("a.npy", &inner);
    outer.crc32 = 0;
    let overlapping = zip_shifted(&[outer, b.clone()], &|i| if i == 1 { inner.len() as u32 } else { 0 });
    assert_eq!(fault("a.npz", &overlapping), SourceFault::Overlap { name: "b.npy".to_owned() });
    malformed(&zip_shifted(std::slice::from_ref(&b), &|_| 1u32.wrapping_neg()), "does not begin where");
    malformed(&[&zip(&entries())[..], b"x"].concat(), "bytes follow");
    malformed(&[b"PK\x03\x04", &zip(&entries())[..]].concat(), "does not reach up to");
    let mut comment = zip(&entries());
    let len = comment.len();
    comment[len - 2] = 1;
    malformed(&comment, "comment");
    let mut count = zip(&entries());
    count[len - 14] = 3;
    count[len - 12] = 3;
    malformed(&count, "2 entries and speaks of 3");
    malformed(&zip(&[Entry { expanded: 7, ..a.clone() }]), "two sizes");
    malformed(&zip(&[Entry { name: "\u{e9}.npy".to_owned(), ..a.clone() }]), "another name");
    malformed(&zip(&[Entry { name: "a.txt".to_owned(), ..a.clone() }]), "not an array");
    for entry in [Entry { flags: 1, ..a.clone() }, Entry { method: 12, ..a.clone() }] {
        assert!(matches!(fault("a.npz", &zip(&[entry])), SourceFault::NotRead { .. }));
    }
}

#[test]
fn bombs() {
    // 64 MiB of zeros in 64 KiB.
    let zeros = npy("(16777216,)", &vec![0; 64 << 20]);
    let bomb = zip(&[Entry::deflated("a.npy", &zeros)]);
    assert!(bomb.len() < 1 << 17);
    assert!(matches!(fault("a.npz", &bomb), SourceFault::Expands { expanded, .. } if expanded > 64 << 20));
    // One that says that it is small: it does not expand to what it claims.
    let small = npy("(2,)", &[0; 8]).len() as u32;
    let mut liar = Entry::deflated("a.npy", &zeros);
    liar.expanded = small;
    liar.data = Entry::deflated("a.npy", &[npy("(2,)", &[0; 8]), vec![0; 1 << 20]].concat()).data;
    let source = open("a.npz", &zip(&[liar])).unwrap().remove(0);
    let error = source.read("a").unwrap_err();
    assert!(error.to_string().contains("does not expand to the size"), "{error}");
    // Many small ones that all point at the same bytes overlap.
    let entry = Entry::deflated("a.npy", &npy("(1000,)", &[0; 4000]));
    let many: Vec<_> = (0..3).map(|i| Entry { name: format!("{i}.npy"), ..entry.clone() }).collect();
    let step = (30 + 5 + entry.data.len()) as u32;
    let same = zip_shifted(&many, &|i| i as u32 * step);
    assert!(matches!(fault("a.npz", &same), SourceFault::Malformed { .. } | SourceFault::Overlap { .. }));
}

#[test]
fn arrays_that_lie() {
    let check = |shape: &str, expected: &str| malformed(&zip(&[Entry::stored("a.npy", &npy(shape, &[0; 8]))]), expected);
    check("(3,)", "does not fill");
    check("(1,)", "does not fill");
    check("(4611686018427387904, 4)", "does not fill");
    check("(18446744073709551616,)", "header");
    check("(-2,)", "header");
    let mut object = npy("(2,)", &[0; 8]);
    let at = object.windows(3).position(|window| window == b"<f4").unwrap();
    object[at..at + 3].copy_from_slice(b"|O8");
    malformed(&zip(&[Entry::stored("a.npy", &object)]), "`|O8`");
    malformed(&zip(&[Entry::stored("a.npy", b"")]), "header");
    malformed(&zip(&[Entry::stored("a.npy", b"\x93NUMPY\x02\0\xff\xff\xff\xff")]), "bytes long");
    let mut damaged = Entry::stored("a.npy", &npy("(2,)", &[0; 8]));
    damaged.crc32 ^= 1;
    let error = open("a.npz", &zip(&[damaged])).unwrap()[0].read("a").unwrap_err();
    assert!(matches!(&error, Error::Tensor { tensor, .. } if tensor == "a") && error.to_string().contains("checksum"), "{error}");
    assert_eq!(fault("a.npz", &zip(&[])), SourceFault::Empty);
}
