//! Writes ONNX models, sound and otherwise, field by field.

/// Appends a varint.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length-delimited field.
pub(crate) fn field(number: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3 | 2);
    varint(&mut out, value.len() as u64);
    out.extend_from_slice(value);
    out
}

/// A varint field.
pub(crate) fn int(number: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3);
    varint(&mut out, value as u64);
    out
}

/// A setting of a node.
#[derive(Clone)]
pub(crate) enum Attr<'a> {
    Int(&'a str, i64),
    Float(&'a str, f32),
    Ints(&'a str, &'a [i64]),
    Text(&'a str, &'a str),
    /// A tensor without a name.
    Tensor(&'a str, Vec<u8>),
}

impl Attr<'_> {
    fn encode(&self) -> Vec<u8> {
        let (name, value, kind) = match self {
            Self::Float(name, value) => (name, [&[0x15][..], &value.to_le_bytes()].concat(), 1),
            Self::Int(name, value) => (name, int(3, *value), 2),
            Self::Text(name, value) => (name, field(4, value.as_bytes()), 3),
            Self::Tensor(name, value) => (name, field(5, value), 4),
            Self::Ints(name, values) => (name, values.iter().flat_map(|&v| int(8, v)).collect(), 7),
        };
        [field(1, name.as_bytes()), value, int(20, kind)].concat()
    }
}

/// How a tensor keeps its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Store {
    RawF32,
    FloatData,
    RawF64,
    DoubleData,
    RawF16,
    Int32DataF16,
    RawBf16,
}

/// A tensor of floats; `half` gives the bits of 16-bit types.
pub(crate) fn floats(name: &str, shape: &[i64], values: &[f32], store: Store) -> Vec<u8> {
    // Values of these tests are such that cutting off bits is exact.
    let bf16 = |v: f32| (v.to_bits() >> 16) as u16;
    let (dtype, data) = match store {
        Store::RawF32 => (1, field(9, &bytes(values, |v| v.to_le_bytes().to_vec()))),
        Store::FloatData => (1, field(4, &bytes(values, |v| v.to_le_bytes().to_vec()))),
        Store::RawF64 => (11, field(9, &bytes(values, |v| f64::from(v).to_le_bytes().to_vec()))),
        Store::DoubleData => (11, field(10, &bytes(values, |v| f64::from(v).to_le_bytes().to_vec()))),
        Store::RawF16 => (10, field(9, &bytes(values, |v| f16(v).to_le_bytes().to_vec()))),
        Store::Int32DataF16 => {
            let mut packed = Vec::new();
            for &v in values {
                varint(&mut packed, u64::from(f16(v)));
            }
            (10, field(5, &packed))
        }
        Store::RawBf16 => (16, field(9, &bytes(values, |v| bf16(v).to_le_bytes().to_vec()))),
    };
    tensor(name, shape, dtype, &data)
}

/// A normal half whose fraction fits.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value == 0.0 {
        return (bits >> 16) as u16;
    }
    ((bits >> 16) & 0x8000) as u16 | ((bits >> 13) & 0x3_ffff).wrapping_sub(112 << 10) as u16 & 0x7fff
}

fn bytes(values: &[f32], encode: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
    values.iter().flat_map(|&v| encode(v)).collect()
}

/// Any tensor: shape, ONNX's number of the type, and the field with its data.
pub(crate) fn tensor(name: &str, shape: &[i64], dtype: i64, data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&axis| int(1, axis)).collect();
    let name = if name.is_empty() { Vec::new() } else { field(8, name.as_bytes()) };
    [dims, int(2, dtype), name, data.to_vec()].concat()
}

/// A graph under construction; input `x`, output `y`.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) opset: i64,
    pub(crate) graph: Vec<u8>,
    count: usize,
}

impl Model {
    /// A graph with a batch of examples of this shape as its input, `-1` for a free axis.
    pub(crate) fn new(shape: &[i64]) -> Self {
        Self { opset: 17, graph: [field(11, &value("x", shape)), field(12, &value("y", &[]))].concat(), count: 0 }
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[i64], values: &[f32]) -> &mut Self {
        self.initializer(&floats(name, shape, values, Store::RawF32))
    }

    pub(crate) fn ints(&mut self, name: &str, values: &[i64]) -> &mut Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(&tensor(name, &[values.len() as i64], 7, &field(9, &data)))
    }

    pub(crate) fn initializer(&mut self, tensor: &[u8]) -> &mut Self {
        self.graph.extend(field(5, tensor));
        self
    }

    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[Attr<'_>]) -> &mut Self {
        let mut node: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
        node.extend(field(2, output.as_bytes()));
        node.extend(field(3, format!("node {}", self.count).as_bytes()));
        node.extend(field(4, op.as_bytes()));
        node.extend(attributes.iter().flat_map(|attribute| field(5, &attribute.encode())));
        self.graph.extend(field(1, &node));
        self.count += 1;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let opset = [field(1, b""), int(2, self.opset)].concat();
        let metadata = [field(1, b"key"), field(2, b"kept as it is")].concat();
        [int(1, 8), field(2, b"a test"), field(7, &self.graph), field(8, &opset), field(14, &metadata)].concat()
    }
}

/// The declaration of a tensor of f32.
pub(crate) fn value(name: &str, shape: &[i64]) -> Vec<u8> {
    let dim = |&axis: &i64| field(1, &if axis < 0 { field(2, b"free") } else { int(1, axis) });
    let shape: Vec<u8> = shape.iter().flat_map(dim).collect();
    [field(1, name.as_bytes()), field(2, &field(1, &[int(1, 1), field(2, &shape)].concat()))].concat()
}

/// Values that are exact in every float type: multiples of ⅛ within ±4, none of them 0.
pub(crate) fn some(count: usize, seed: u64) -> Vec<f32> {
    let each = |i: usize| ((i as u64 * 37 + seed * 11) % 63) as f32 / 8.0 - 3.9375 + 0.0625;
    (0..count).map(each).map(|v| if v == 0.0 { 0.5 } else { v }).collect()
}

/// Row-major transpose of `[rows, columns]`.
pub(crate) fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
}
