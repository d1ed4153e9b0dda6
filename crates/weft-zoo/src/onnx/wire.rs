//! The protobuf wire format: a bounded walk before anything is decoded, and fields with their exact bytes for export.
//!
//! A message is a sequence of fields; a field is a key (number and kind, a varint) and a value. A decoder that
//! builds a struct for every submessage can be made to allocate a hundred times a file's length, so [`check`] counts
//! first what decoding would build.

use super::OnnxFault;

/// Most fields outside of bulk data. The largest published graphs have some hundred thousand.
const MAX_FIELDS: usize = 1 << 18;
/// Most bytes of packed integers; each may become eight.
const MAX_PACKED_BYTES: usize = 1 << 23;

/// How a field's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Varint,
    Fixed64,
    Len,
    Fixed32,
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// The value: a message, string or packed values without their length, or the bytes of a number.
    pub(super) value: &'a [u8],
    /// Key, length and value as they stand in the file.
    pub(super) whole: &'a [u8],
}

/// The fields of a message, in order.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn varint(&mut self) -> Result<u64, OnnxFault> {
        let mut value = 0u64;
        for i in 0..10 {
            let byte = *self.bytes.get(self.at).ok_or(OnnxFault::Truncated)?;
            self.at += 1;
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(OnnxFault::Wire { reason: "a number has more than 64 bits" })
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], OnnxFault> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).ok().filter(|&len| len <= rest.len()).ok_or(OnnxFault::Truncated)?;
        self.at += len;
        Ok(&rest[..len])
    }

    fn field(&mut self) -> Result<Field<'a>, OnnxFault> {
        let start = self.at;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(OnnxFault::Wire { reason: "a field has an impossible number" })?;
        let (kind, value) = match key & 7 {
            0 => {
                let from = self.at;
                self.varint()?;
                (Kind::Varint, &self.bytes[from..self.at])
            }
            1 => (Kind::Fixed64, self.take(8)?),
            2 => {
                let len = self.varint()?;
                (Kind::Len, self.take(len)?)
            }
            5 => (Kind::Fixed32, self.take(4)?),
            _ => return Err(OnnxFault::Wire { reason: "a field is of a kind that ONNX does not use" }),
        };
        Ok(Field { number, kind, value, whole: &self.bytes[start..self.at] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, OnnxFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// The messages that are descended into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    /// A message of plain fields, or one whose fields are messages of plain fields.
    Other,
}

impl Message {
    /// The message that a field holds, among those that are decoded.
    pub(super) fn child(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 8) | (Self::Tensor, 13) => Self::Other,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph | Self::Attribute, 5) => Self::Tensor,
            (Self::Graph, 11 | 12) => Self::Value,
            (Self::Node, 5) => Self::Attribute,
            _ => return None,
        })
    }

    /// Whether a length-delimited field holds packed varints.
    fn packs_integers(self, number: u32) -> bool {
        matches!((self, number), (Self::Tensor, 1 | 5 | 7) | (Self::Attribute, 8))
    }
}

/// What decoding may still build.
struct Budget {
    fields: usize,
    packed: usize,
}

/// Walks a whole model and checks that decoding it stays within bounds.
pub(super) fn check(model: &[u8]) -> Result<(), OnnxFault> {
    walk(Message::Model, model, &mut Budget { fields: MAX_FIELDS, packed: MAX_PACKED_BYTES })
}

/// Recursion ends: the schema nests five deep, and types and shapes four more.
fn walk(message: Message, bytes: &[u8], budget: &mut Budget) -> Result<(), OnnxFault> {
    for field in Fields::new(bytes) {
        let field = field?;
        let over = |what, limit| OnnxFault::TooMany { what, limit };
        budget.fields = budget.fields.checked_sub(1).ok_or_else(|| over("fields", MAX_FIELDS))?;
        if field.kind != Kind::Len {
            continue;
        }
        if let Some(child) = message.child(field.number) {
            walk(child, field.value, budget)?;
        } else if message.packs_integers(field.number) {
            let left = budget.packed.checked_sub(field.value.len());
            budget.packed = left.ok_or_else(|| over("bytes of packed integers", MAX_PACKED_BYTES))?;
        } else if message == Message::Value && field.number == 2 {
            walk_type(field.value, 3, budget)?;
        }
    }
    Ok(())
}

/// `TypeProto`, `Tensor`, `TensorShapeProto`, `Dimension`: each within the one before.
fn walk_type(bytes: &[u8], levels: usize, budget: &mut Budget) -> Result<(), OnnxFault> {
    for field in Fields::new(bytes) {
        let field = field?;
        let left = budget.fields.checked_sub(1);
        budget.fields = left.ok_or(OnnxFault::TooMany { what: "fields", limit: MAX_FIELDS })?;
        // Numbers 1 and 2 are the messages of the next level, except in `Dimension`, which is the last.
        if field.kind == Kind::Len && levels > 0 && matches!(field.number, 1 | 2) {
            walk_type(field.value, levels - 1, budget)?;
        }
    }
    Ok(())
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub(super) fn put_len(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_bombs_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut fields = Fields::new(&bytes);
            assert_eq!(fields.varint().unwrap(), value);
            assert_eq!(fields.at, bytes.len());
        }
        let check = |bytes: &[u8], expected: &str| {
            let fault = Fields::new(bytes).find_map(Result::err).unwrap().to_string();
            assert!(fault.contains(expected), "{fault}");
        };
        check(&[0xff; 32], "more than 64 bits");
        check(&[0x08, 0xff], "ends");
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "ends");
        check(&[0x00, 0x01], "impossible number");
        check(&[0x0b], "does not use");
        check(&[0x09, 1, 2], "ends");
    }

    #[test]
    fn fields_keep_their_bytes() {
        let mut bytes = vec![0x08, 0x96, 0x01];
        put_len(&mut bytes, 9, b"abc");
        bytes.extend([0x15, 0, 0, 0x80, 0x3f]);
        let fields: Vec<_> = Fields::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 9, 2]);
        assert_eq!(fields[1].value, b"abc");
        assert_eq!(fields.iter().flat_map(|f| f.whole.iter().copied()).collect::<Vec<_>>(), bytes);
    }
}
