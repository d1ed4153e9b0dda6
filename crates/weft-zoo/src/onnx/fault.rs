//! What can be wrong with an ONNX model.

/// Why an ONNX model is not read, or not written back.
///
/// `node` is the node's name or, where it has none, its first output.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxFault {
    /// The file is longer than a protobuf message can be.
    #[error("it has {got} bytes, at most {limit} are read; models this large keep their tensors in external data")]
    TooLarge {
        /// Bytes that there are.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes end within a field.
    #[error("it ends within a field; it is truncated or no ONNX model")]
    Truncated,
    /// The bytes are no protobuf message.
    #[error("it is not an ONNX model: {reason}")]
    Wire {
        /// What is wrong.
        reason: &'static str,
    },
    /// A field is not of the type that the schema gives it.
    #[error("it is not an ONNX model: {reason}")]
    Decode {
        /// The decoder's message.
        reason: String,
    },
    /// More of something than an honest model has.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A part that every model has is missing.
    #[error("it has no {what}; it is truncated or no ONNX model")]
    Missing {
        /// The part.
        what: &'static str,
    },
    /// The model speaks a version of ONNX's ops that is not known.
    #[error("it uses version {got} of ONNX's ops; versions {min} to {max} are read: export it again with one of them")]
    Opset {
        /// Its version.
        got: i64,
        /// The oldest version that is read.
        min: i64,
        /// The newest version that is read.
        max: i64,
    },
    /// Two values share a name.
    #[error("the name `{name}` is given to two values")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A node reads a value that nothing makes.
    #[error("node `{node}` (op `{op}`) reads `{value}`, which no input, initializer or node provides")]
    MissingValue {
        /// The node.
        node: String,
        /// Its op.
        op: String,
        /// The name that it reads.
        value: String,
    },
    /// The graph's output is made by nothing.
    #[error("no node makes the output `{value}`")]
    MissingOutput {
        /// The output's name.
        value: String,
    },
    /// A node depends on itself.
    #[error("the graph is cyclic: node `{node}` (op `{op}`) depends on its own output")]
    Cycle {
        /// A node on the cycle.
        node: String,
        /// Its op.
        op: String,
    },
    /// An op that is not known.
    #[error(
        "op `{op}` of node `{node}` is not known; remove it from the model, or export the part of the network without it (known ops: {known})"
    )]
    UnknownOp {
        /// The node.
        node: String,
        /// Its op, with its domain where that is not ONNX's own.
        op: String,
        /// The known ops.
        known: String,
    },
    /// An op that is known is used in a way that is not.
    #[error("node `{node}` (op `{op}`): {reason}")]
    Unsupported {
        /// The node.
        node: String,
        /// Its op.
        op: String,
        /// What stands in the way.
        reason: &'static str,
    },
    /// The model has not exactly one input and one output.
    #[error("it has {got} {what}, expected 1; export the part of the network between one input and one output")]
    Ends {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// Their number.
        got: usize,
    },
    /// The input's shape is not known.
    #[error("input `{input}`: {reason}")]
    Input {
        /// The input's name.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tensor's element type is not read.
    #[error("tensor `{tensor}` has element type {dtype}; f32, f64, f16, bf16, i64, i32, i8, u8 and bool are read")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// ONNX's number of the type.
        dtype: i32,
    },
    /// A tensor's data do not fill its shape.
    #[error("tensor `{tensor}` of shape {shape:?} does not fit its data: {reason}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<i64>,
        /// What does not fit.
        reason: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}`: value {index} is not finite")]
    NonFinite {
        /// The tensor as the architecture names it.
        tensor: String,
        /// The value's index in it.
        index: usize,
    },
    /// Data outside of the model that cannot be read.
    #[error("tensor `{tensor}` has external data in `{location}`: {reason}")]
    External {
        /// The tensor.
        tensor: String,
        /// The file that it names.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// The network is none that an architecture can express.
    #[error("the graph is no architecture: {reason}")]
    Architecture {
        /// Why.
        reason: String,
    },
    /// The model to be written back is another network.
    #[error("it is `{got}`, the weights are of `{expected}`; export into a model of the same architecture")]
    OtherArchitecture {
        /// The architecture of the weights.
        expected: String,
        /// That of the model.
        got: String,
    },
    /// A tensor that would change is more than a weight.
    #[error(
        "the weights cannot be written back: the model also uses a tensor that would change for something else; export into another model of the same architecture"
    )]
    Entangled,
    /// A weight has no place of its own in the model.
    #[error("tensor `{tensor}` cannot be written back: {reason}; export into another model of the same architecture")]
    Origin {
        /// The tensor as the architecture names it.
        tensor: String,
        /// Why.
        reason: &'static str,
    },
}
