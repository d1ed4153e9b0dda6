//! A pass over a pickle before anything interprets it.
//!
//! A pickle is a program for a stack machine that may name any function and call it. Crate `pytorch-reader` calls
//! nothing; but a call that it does not know becomes an empty value there, and a checkpoint that wants to call
//! `os.system` should be refused by that name, not be read as if it were sound. So this pass follows the stack as far
//! as names need it (strings, marks and the memo), refuses each name that plain tensors and values do not need, and
//! bounds the work.
//!
//! # References
//! The opcodes of CPython's `pickletools`; the names that `torch.load` permits with `weights_only=True`.

use super::SourceFault;
use std::collections::BTreeMap;
use std::ops::Range;

/// The longest pickle that is read.
pub(crate) const MAX_PICKLE_BYTES: usize = 25 << 20;

/// The most opcodes that are followed: each may put an object on the stack.
const MAX_OPCODES: usize = 1 << 19;

/// The most objects that the memo may multiply: the crate that interprets pickles copies what Python shares. Some
/// thirty a tensor is what `torch.save` needs.
const MAX_COPIES: u64 = 400_000;

/// Names of torch that stand for types of storages and elements.
const TORCH_TYPES: [&str; 36] = [
    "FloatStorage",
    "DoubleStorage",
    "HalfStorage",
    "BFloat16Storage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
    "UntypedStorage",
    "Size",
    "device",
    "Tensor",
    "float32",
    "float",
    "float64",
    "double",
    "float16",
    "half",
    "bfloat16",
    "int64",
    "long",
    "int32",
    "int",
    "int16",
    "short",
    "int8",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "float8_e4m3fn",
    "float8_e5m2",
    "strided",
];

/// Other names that checkpoints of tensors and plain values need.
const OTHERS: [(&str, &[&str]); 13] = [
    ("collections", &["OrderedDict", "defaultdict", "Counter"]),
    (
        "torch._utils",
        &["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state"],
    ),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch.nn.parameter", &["Parameter", "Buffer"]),
    ("torch.storage", &["UntypedStorage", "TypedStorage"]),
    ("torch.serialization", &["_get_layout"]),
    ("builtins", &["set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytearray", "complex"]),
    ("__builtin__", &["set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytearray", "complex"]),
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("numpy", &["dtype", "float64", "float32", "int64"]),
    ("numpy.core.multiarray", &["scalar"]),
    ("numpy._core.multiarray", &["scalar"]),
];

fn permitted(module: &str, name: &str) -> bool {
    (module == "torch" && TORCH_TYPES.contains(&name)) || OTHERS.iter().any(|(m, names)| *m == module && names.contains(&name))
}

/// What is known of an object on the stack.
#[derive(Clone)]
enum Slot {
    /// A string and its place in the bytes.
    Text(Range<usize>),
    /// Anything else, made of so many objects.
    Other(u64),
}

impl Slot {
    fn objects(&self) -> u64 {
        match self {
            Self::Text(_) => 1,
            Self::Other(objects) => *objects,
        }
    }
}

/// Follows one pickle from `at`; returns the place after it.
pub(crate) fn check_pickle(bytes: &[u8], at: usize) -> Result<usize, SourceFault> {
    let mut scan = Scan { bytes, at, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), copies: 0 };
    for _ in 0..MAX_OPCODES {
        if scan.at.saturating_sub(at) > MAX_PICKLE_BYTES {
            let what = "its pickle".to_owned();
            return Err(SourceFault::TooLarge { what, got: (scan.at - at) as u64, limit: MAX_PICKLE_BYTES as u64 });
        }
        if scan.step()? {
            return Ok(scan.at);
        }
    }
    Err(malformed(format!("it has more than {MAX_OPCODES} opcodes")))
}

fn malformed(reason: impl Into<String>) -> SourceFault {
    SourceFault::malformed("its pickle", reason)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Slot>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Slot>,
    /// Objects that the memo has multiplied so far.
    copies: u64,
}

impl Scan<'_> {
    /// Follows one opcode; true at the end of the pickle.
    fn step(&mut self) -> Result<bool, SourceFault> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return self.pop(1).map(|_| true),
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.marks.last() == Some(&self.stack.len()) => _ = self.marks.pop(),
            b'0' => _ = self.pop(1)?,
            b'1' => _ = self.pop_to_mark()?,
            b'a' => self.grow(1)?,
            b's' => self.grow(2)?,
            b'e' | b'u' | 0x90 => {
                let objects = self.pop_to_mark()?;
                self.grow_by(objects)?;
            }
            b'd' | b'l' | b't' | 0x91 => {
                let objects = self.pop_to_mark()?;
                self.stack.push(Slot::Other(objects.saturating_add(1)));
            }
            b'2' => {
                let top = self.copy()?;
                self.stack.push(top);
            }
            b'Q' | 0x85 => self.replace(1)?,
            b'R' | b'b' | 0x81 | 0x86 => self.replace(2)?,
            0x87 | 0x92 => self.replace(3)?,
            b'c' | b'i' | 0x93 => self.global(opcode)?,
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.memo(opcode)?,
            _ => self.value(opcode)?,
        }
        Ok(false)
    }

    /// A name: as two lines, or as the two strings on top of the stack.
    fn global(&mut self, opcode: u8) -> Result<(), SourceFault> {
        let (module, name) = if opcode == 0x93 {
            let (name, module) = (self.stack.pop(), self.stack.pop());
            let (Some(Slot::Text(module)), Some(Slot::Text(name))) = (module, name) else {
                return Err(malformed("it takes the name of a class from something that is no string"));
            };
            (module, name)
        } else {
            (self.line()?, self.line()?)
        };
        let text = |range: Range<usize>| String::from_utf8_lossy(&self.bytes[range.start..range.end.min(range.start + 200)]);
        let (module, name) = (text(module), text(name));
        if !permitted(&module, &name) {
            return Err(SourceFault::Global { global: format!("{module}.{name}") });
        }
        if opcode == b'i' {
            return Err(malformed("it builds an object by an opcode of the oldest protocol"));
        }
        self.push();
        Ok(())
    }

    fn memo(&mut self, opcode: u8) -> Result<(), SourceFault> {
        let key = match opcode {
            b'g' | b'p' => {
                let line = self.line()?;
                let text = std::str::from_utf8(&self.bytes[line]).ok();
                text.and_then(|text| text.trim().parse().ok()).ok_or_else(|| malformed("a place in its memo is no number"))?
            }
            b'h' | b'q' => u64::from(self.take(1)?[0]),
            b'j' | b'r' => self.number(4)?,
            _ => self.memo.len() as u64,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let slot = self.memo.get(&key).ok_or_else(|| malformed(format!("place {key} of its memo is empty")))?.clone();
            self.charge(&slot)?;
            self.stack.push(slot);
        } else {
            let top = self.copy()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    /// Opcodes that push a value which stands in the pickle.
    fn value(&mut self, opcode: u8) -> Result<(), SourceFault> {
        match opcode {
            b'N' | b')' | b']' | b'}' | 0x88 | 0x89 | 0x8f => {}
            b'I' | b'L' | b'F' | b'P' => _ = self.line()?,
            b'K' => self.skip(1)?,
            b'M' => self.skip(2)?,
            b'J' => self.skip(4)?,
            b'G' => self.skip(8)?,
            b'V' => return self.line().map(|line| self.stack.push(Slot::Text(line))),
            b'U' | 0x8c => return self.text(1),
            b'T' | b'X' => return self.text(4),
            0x8d => return self.text(8),
            b'C' | 0x8a => self.skip_counted(1)?,
            b'B' | 0x8b => self.skip_counted(4)?,
            0x8e | 0x96 => self.skip_counted(8)?,
            other => return Err(malformed(format!("it has the opcode {other:#04x}, which checkpoints do not need"))),
        }
        self.push();
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&[u8], SourceFault> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| malformed("it is cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, len: usize) -> Result<(), SourceFault> {
        self.take(len).map(|_| ())
    }

    /// A little-endian number.
    fn number(&mut self, len: usize) -> Result<u64, SourceFault> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// Skips bytes whose number stands before them.
    fn skip_counted(&mut self, width: usize) -> Result<(), SourceFault> {
        let len = self.number(width)?;
        self.skip(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn text(&mut self, width: usize) -> Result<(), SourceFault> {
        self.skip_counted_from(width).map(|range| self.stack.push(Slot::Text(range)))
    }

    fn skip_counted_from(&mut self, width: usize) -> Result<Range<usize>, SourceFault> {
        let start = self.at + width;
        self.skip_counted(width)?;
        Ok(start..self.at)
    }

    /// The bytes up to the end of the line.
    fn line(&mut self) -> Result<Range<usize>, SourceFault> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().take(MAX_PICKLE_BYTES).position(|&byte| byte == b'\n').ok_or_else(|| malformed("it is cut short"))?;
        let range = self.at..self.at + len;
        self.at += len + 1;
        Ok(range)
    }

    fn push(&mut self) {
        self.stack.push(Slot::Other(1));
    }

    /// A copy of the top of the stack.
    fn copy(&mut self) -> Result<Slot, SourceFault> {
        let top = self.top()?.clone();
        self.charge(&top)?;
        Ok(top)
    }

    fn charge(&mut self, slot: &Slot) -> Result<(), SourceFault> {
        self.copies = self.copies.saturating_add(slot.objects());
        if self.copies > MAX_COPIES {
            return Err(malformed(format!("its memo would multiply more than {MAX_COPIES} objects")));
        }
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Takes slots away; returns of how many objects they are.
    fn pop(&mut self, count: usize) -> Result<u64, SourceFault> {
        let height = self.stack.len().checked_sub(count).filter(|&height| height >= self.floor());
        let height = height.ok_or_else(|| malformed("it takes more from its stack than there is"))?;
        Ok(self.stack.drain(height..).fold(0, |sum: u64, slot| sum.saturating_add(slot.objects())))
    }

    /// Puts one object in the place of several.
    fn replace(&mut self, count: usize) -> Result<(), SourceFault> {
        let objects = self.pop(count)?;
        self.stack.push(Slot::Other(objects.saturating_add(1)));
        Ok(())
    }

    /// Adds slots to the container below them.
    fn grow(&mut self, count: usize) -> Result<(), SourceFault> {
        let objects = self.pop(count)?;
        self.grow_by(objects)
    }

    fn grow_by(&mut self, objects: u64) -> Result<(), SourceFault> {
        self.top()?;
        if let Some(Slot::Other(held)) = self.stack.last_mut() {
            *held = held.saturating_add(objects);
        }
        Ok(())
    }

    /// Takes all away that is above the last mark; returns of how many objects it is.
    fn pop_to_mark(&mut self) -> Result<u64, SourceFault> {
        let mark = self.marks.pop().ok_or_else(|| malformed("it goes back to a mark that it never set"))?;
        Ok(self.stack.drain(mark.min(self.stack.len())..).fold(0, |sum: u64, slot| sum.saturating_add(slot.objects())))
    }

    fn top(&self) -> Result<&Slot, SourceFault> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.ok_or_else(|| malformed("it takes more from its stack than there is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pickle: &[u8]) -> Result<usize, SourceFault> {
        check_pickle(pickle, 0)
    }

    fn global(pickle: &[u8]) -> String {
        match check(pickle) {
            Err(SourceFault::Global { global }) => global,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_values_pass() {
        // `pickle.dumps({"a": [1, 2.5, None, True], "b": ("x", b"y")}, protocol)` for protocols 2 and 4.
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88eX\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04X\x01\x00\x00\x00yq\x05\x86q\x06u.";
        assert_eq!(check(two), Ok(two.len()));
        let four = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x94\x8c\x01x\x94C\x01y\x94\x86\x94u.";
        assert_eq!(check(four), Ok(four.len()));
        for len in 0..two.len() {
            assert!(matches!(check(&two[..len]), Err(SourceFault::Malformed { .. })), "{len}");
        }
    }

    #[test]
    fn names_of_functions_are_found_in_every_spelling() {
        assert_eq!(global(b"cos\nsystem\n(S'id'\ntR."), "os.system");
        assert_eq!(global(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85Rq\x02."), "posix.system");
        assert_eq!(global(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."), "os.system");
        // The two strings come from the memo, behind a decoy.
        let hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93.";
        assert_eq!(global(hidden), "os.system");
        assert_eq!(global(b"(ios\nsystem\n."), "os.system");
        assert_eq!(global(b"\x80\x02cbuiltins\neval\n."), "builtins.eval");
        assert_eq!(global(b"\x80\x02ctorch\nload\n."), "torch.load");
        assert_eq!(global(b"\x80\x02c__main__\nNet\n)\x81."), "__main__.Net");
    }

    #[test]
    fn broken_pickles() {
        let cases: [&[u8]; 12] = [
            b"",
            b".",
            b"0.",
            b"t.",
            b"(2.",
            b"K",
            b"N\x85\x86.",
            b"h\x05.",
            b"NN\x93.",
            b"\x82\x01.",
            b"X\xff\xff\xff\xffa.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        ];
        for case in cases {
            assert!(matches!(check(case), Err(SourceFault::Malformed { .. })), "{case:?}");
        }
        let mut endless = vec![b'N'; MAX_OPCODES + 1];
        endless.push(b'.');
        assert!(check(&endless).unwrap_err().to_string().contains("opcodes"));
    }
}
