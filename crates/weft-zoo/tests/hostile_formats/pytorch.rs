//! Checkpoints of `PyTorch`: pickles that call, archives that grow, tensors that are larger than their file.

use crate::make::{Entry, checkpoint, fault, open, pickle, tensor, text, truncations, zip};
use weft_zoo::SourceFault;

const ONE: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];

fn sound() -> Vec<u8> {
    zip(&checkpoint(&pickle(&[("a", 2), ("b", 1)]), &[&ONE, &ONE[..4]]))
}

#[test]
fn sound_and_cut() {
    let source = open("net.pt", &sound()).unwrap().remove(0);
    assert_eq!(source.read("a").unwrap(), [1.0, 2.0]);
    assert_eq!(source.read("b").unwrap(), [1.0]);
    truncations("net.pt", &sound());
    // Its content tells the format, whatever its name.
    assert_eq!(open("net.dat", &sound()).unwrap().len(), 1);
}

fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    zip(&checkpoint(pickle, &[&ONE]))
}

#[test]
fn pickles_that_call_functions() {
    let called = |pickle: &[u8]| match fault("net.pt", &with_pickle(pickle)) {
        SourceFault::Global { global } => global,
        other => panic!("{other}"),
    };
    assert_eq!(called(b"cos\nsystem\n(X\x02\x00\x00\x00idtR."), "os.system");
    assert_eq!(called(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), "posix.system");
    assert_eq!(called(b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x04pass\x85R."), "builtins.exec");
    assert_eq!(called(b"\x80\x02}(X\x01\x00\x00\x00ac__main__\nNet\n)\x81}bu."), "__main__.Net");
    assert_eq!(called(b"\x80\x02ctorch.hub\nload\n)R."), "torch.hub.load");
    assert_eq!(called(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n."), "numpy.core.multiarray._reconstruct");
    // Behind a sound dictionary, where a reader that stops early would not look.
    let sound = pickle(&[("a", 2)]);
    let mut late = sound[..sound.len() - 1].to_vec();
    late.extend(b"cos\nsystem\n)R0.");
    assert_eq!(called(&late), "os.system");
    // The older format has five pickles; each is checked.
    for place in 0..5 {
        assert!(matches!(fault("net.pth", &legacy(Some(place))), SourceFault::Global { .. }), "{place}");
    }
    assert_eq!(open("net.pth", &legacy(None)).unwrap()[0].read("a").unwrap(), [1.0, 2.0]);
    truncations("net.pth", &legacy(None));
}

/// A checkpoint of `PyTorch` 1.5, with a call in one of its pickles.
fn legacy(evil: Option<usize>) -> Vec<u8> {
    let mut keys = b"\x80\x02]".to_vec();
    text(&mut keys, "0");
    keys.extend(b"a.");
    let mut system = b"\x80\x02}(".to_vec();
    text(&mut system, "little_endian");
    system.extend(b"\x88u.");
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    let mut pickles = [magic, b"\x80\x02M\xe9\x03.".to_vec(), system, pickle(&[("a", 2)]), keys];
    if let Some(place) = evil {
        pickles[place].pop();
        pickles[place].extend(b"cos\nsystem\n)R0.");
    }
    let count = 2u64.to_le_bytes();
    [&pickles.concat()[..], &count, &ONE].concat()
}

#[test]
fn broken_pickles() {
    let malformed = |pickle: &[u8], expected: &str| {
        let fault = fault("net.pt", &with_pickle(pickle));
        assert!(matches!(fault, SourceFault::Malformed { .. }) && fault.to_string().contains(expected), "{fault}");
    };
    malformed(b"", "cut short");
    malformed(b"\x80\x02}", "cut short");
    malformed(b"\x80\x02}.}.", "bytes follow");
    malformed(b"\x80\x02\x82\x01.", "opcode 0x82");
    malformed(b"\x80\x02h\x07.", "place 7");
    malformed(&[b"\x80\x02", &vec![b'N'; 1 << 21][..], b"."].concat(), "opcodes");
    malformed(&[b"\x80\x02]", &vec![0x85; 5000][..], b"."].concat(), "nesting");
    // Twice the copy of a copy of a copy …: 2³⁰ objects from a hundred bytes.
    let mut bomb = b"\x80\x02]q\x00".to_vec();
    for i in 0..30u8 {
        bomb.extend([b'(', b'h', i, b'h', i, b't', b'q', i + 1]);
    }
    bomb.push(b'.');
    malformed(&bomb, "would multiply");
    assert!(matches!(fault("net.pt", &with_pickle(b"\x80\x02].")), SourceFault::NotRead { .. }));
    assert_eq!(fault("net.pt", &with_pickle(b"\x80\x02}.")), SourceFault::Empty);
    assert_eq!(fault("net.pkl", b"\x80\x02}."), SourceFault::Empty);
}

#[test]
fn archives_that_lie() {
    let entries = || checkpoint(&pickle(&[("a", 2)]), &[&ONE]);
    let mut twice = entries();
    twice.push(twice[0].clone());
    assert_eq!(fault("net.pt", &zip(&twice)), SourceFault::Duplicate { name: "net/data.pkl".to_owned() });
    let mut storage_twice = entries();
    storage_twice.push(Entry::stored("net/data/0", &[9; 8]));
    assert_eq!(fault("net.pt", &zip(&storage_twice)), SourceFault::Duplicate { name: "net/data/0".to_owned() });
    let mut two_roots = entries();
    two_roots.push(Entry::stored("x/data.pkl", b"\x80\x02}."));
    assert!(matches!(fault("net.pt", &zip(&two_roots)), SourceFault::Malformed { .. }));
    let mut elsewhere = entries();
    elsewhere.push(Entry::stored("x/data/0", &ONE));
    assert!(matches!(fault("net.pt", &zip(&elsewhere)), SourceFault::Malformed { .. }));
    let mut pickle_bomb = entries();
    pickle_bomb[0] = Entry::deflated("net/data.pkl", &vec![b'N'; 64 << 20]);
    assert!(matches!(fault("net.pt", &zip(&pickle_bomb)), SourceFault::Expands { .. }));
    let mut long = entries();
    long[0].expanded = 26 << 20;
    long[0].method = 8;
    long.push(Entry::stored("net/data/1", &vec![0; 1 << 20]));
    assert!(matches!(fault("net.pt", &zip(&long)), SourceFault::TooLarge { .. }));
    let mut storage_bomb = entries();
    storage_bomb[2] = Entry::deflated("net/data/0", &vec![0; 8 << 20]);
    assert!(matches!(fault("net.pt", &zip(&storage_bomb)), SourceFault::NotRead { .. }));
    let tar = [&[0; 257][..], b"ustar", &[0; 250]].concat();
    assert!(matches!(fault("net.pt", &tar), SourceFault::NotRead { .. }));
    assert!(matches!(fault("net.pt", b"garbage"), SourceFault::Malformed { .. }));
    let mut big_endian = entries();
    big_endian.push(Entry::stored("net/byteorder", b"big"));
    assert!(fault("net.pt", &zip(&big_endian)).to_string().contains("ig-endian"));
}

#[test]
fn tensors_that_do_not_fit_their_storage() {
    let one = |stored: u16, len: u16, stride: u8| {
        let mut pickle = b"\x80\x02}(".to_vec();
        tensor(&mut pickle, "a", 0, stored, len, stride);
        pickle.extend(b"u.");
        with_pickle(&pickle)
    };
    assert!(fault("net.pt", &one(2, 3, 1)).to_string().contains("needs 3 elements"));
    // Stride 0: one value, 60,000 times.
    assert!(matches!(fault("net.pt", &one(2, 60_000, 0)), SourceFault::TooLarge { .. }));
    // The storage is shorter than the pickle says: seen when it is read.
    let source = open("net.pt", &one(3, 3, 1)).unwrap().remove(0);
    assert!(source.read("a").unwrap_err().to_string().contains("`a`"));
    let absent = zip(&checkpoint(&pickle(&[("a", 2)]), &[]));
    let error = open("net.pt", &absent).unwrap().remove(0).first_non_finite().unwrap_err();
    assert!(error.to_string().contains("net/data/0"), "{error}");
    // A hundred tensors of one storage.
    let mut shared = b"\x80\x02}(".to_vec();
    for i in 0..100 {
        tensor(&mut shared, &format!("t{i}"), 0, 60_000, 60_000, 1);
    }
    shared.extend(b"u.");
    let shared = zip(&checkpoint(&shared, &[&vec![0; 240_000]]));
    assert!(fault("net.pt", &shared).to_string().contains("share"));
    let mut overflow = b"\x80\x02}(".to_vec();
    tensor(&mut overflow, "a", 0, 2, 2, 1);
    let at = overflow.windows(4).position(|window| window == b"\x85K\x01\x85").unwrap();
    // The shape (2⁶², 2⁶²).
    let wide = [&b"\x8a\x08"[..], &(1u64 << 62).to_le_bytes()].concat();
    overflow.splice(at - 3..at + 4, [&wide[..], &wide, b"\x86K\x01K\x01\x86"].concat());
    overflow.extend(b"u.");
    assert!(fault("net.pt", &with_pickle(&overflow)).to_string().contains("overflows"));
}

#[test]
fn nested_dictionaries() {
    let nest = |keys: &[&str], inner: &[(&str, u16)]| {
        let mut pickle = b"\x80\x02".to_vec();
        for key in keys {
            pickle.extend(b"}(");
            text(&mut pickle, key);
        }
        pickle.extend(b"}(");
        for (i, (name, len)) in inner.iter().enumerate() {
            tensor(&mut pickle, name, i, *len, *len, 1);
        }
        pickle.push(b'u');
        pickle.extend(vec![b'u'; keys.len()]);
        pickle.push(b'.');
        zip(&checkpoint(&pickle, &[&ONE, &ONE]))
    };
    let check = |keys: &[&str], names: &[&str], stripped: &[&str], expected: &[&str]| {
        let inner: Vec<_> = names.iter().map(|name| (*name, 2)).collect();
        let source = open("net.pt", &nest(keys, &inner)).unwrap().remove(0);
        assert_eq!(source.stripped(), stripped);
        assert_eq!(source.tensors().keys().collect::<Vec<_>>(), expected);
        assert_eq!(source.read(expected[0]).unwrap(), [1.0, 2.0]);
    };
    check(&["state_dict"], &["a", "b"], &["state_dict."], &["a", "b"]);
    check(&["model", "state_dict"], &["module._orig_mod.a"], &["model.", "state_dict.", "module.", "_orig_mod."], &["a"]);
    // The names of the model's own parts stay.
    check(&[], &["model.a", "model.b"], &[], &["model.a", "model.b"]);
    check(&["ema"], &["a"], &[], &["ema.a"]);
    // Two tensors that would have one name once the dictionaries are flattened.
    let mut pickle = b"\x80\x02}(".to_vec();
    tensor(&mut pickle, "a.b", 0, 2, 2, 1);
    text(&mut pickle, "a");
    pickle.extend(b"}(");
    tensor(&mut pickle, "b", 0, 2, 2, 1);
    pickle.extend(b"uu.");
    assert_eq!(fault("net.pt", &with_pickle(&pickle)), SourceFault::Duplicate { name: "a.b".to_owned() });
}
