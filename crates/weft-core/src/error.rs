//! What can be wrong with a domain value.

/// An invalid architecture, population, recipe, data set or condition.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An op names an input that does not come before it, or has the wrong number of inputs.
    #[error("architecture `{architecture}`, op {op} ({kind}): {reason}")]
    Graph {
        /// Name of the architecture.
        architecture: String,
        /// Index of the op in the graph.
        op: usize,
        /// The op's kind, or `end`.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An architecture has more weights than can be.
    #[error("architecture `{architecture}`: tensor `{tensor}` of shape {shape:?} brings it above {limit} weights")]
    TooLarge {
        /// Name of the architecture.
        architecture: String,
        /// The tensor that does.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The most weights allowed.
        limit: usize,
    },
    /// A size of a family does not fit the others.
    #[error("{family}: `{size}` must be {expected}, got {got}")]
    Size {
        /// The family.
        family: &'static str,
        /// The size's name.
        size: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: usize,
    },
    /// Two tensors of an architecture share a name.
    #[error("architecture `{architecture}` declares the tensor `{tensor}` twice")]
    DuplicateTensor {
        /// Name of the architecture.
        architecture: String,
        /// The repeated name.
        tensor: String,
    },
    /// A number of values does not fit the declared shape.
    #[error("`{what}` has {got} values, expected {expected}")]
    Length {
        /// What was counted.
        what: String,
        /// The number that the declaration asks for.
        expected: usize,
        /// The number that was given.
        got: usize,
    },
    /// A label lies outside `0..num_classes`.
    #[error("data set `{dataset}`: label {label} of example {example} is not below {num_classes}")]
    Label {
        /// Name of the data set.
        dataset: String,
        /// Index of the example.
        example: usize,
        /// The label found.
        label: u32,
        /// The number of classes declared.
        num_classes: usize,
    },
    /// A part of a data set is empty or reaches past its end.
    #[error("data set `{dataset}`: the {part} part is empty or reaches past the {examples} examples")]
    Division {
        /// Name of the data set.
        dataset: String,
        /// The part's name.
        part: &'static str,
        /// The number of examples that there are.
        examples: usize,
    },
    /// A setting of a recipe is out of its range.
    #[error("recipe: `{setting}` must be {expected}, got {got}")]
    Recipe {
        /// The setting's name.
        setting: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A condition names a field that the schema lacks.
    #[error("unknown condition field `{field}`; known fields: {known}")]
    UnknownField {
        /// The field asked for.
        field: String,
        /// The known fields, or `none`.
        known: String,
    },
    /// A value lies too far outside what the schema's field was fitted on, or is not finite.
    #[error("condition field `{field}`: {value} is outside the trained range {min}..={max}")]
    FieldRange {
        /// The field's name.
        field: String,
        /// The value asked for.
        value: f64,
        /// Smallest value allowed.
        min: f64,
        /// Largest value allowed.
        max: f64,
    },
    /// A value of a condition's field has another type, length or form than the field.
    #[error("condition field `{field}` must be {expected}, got {got}")]
    FieldValue {
        /// The field's name.
        field: String,
        /// What it wants.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A word is not among those that training saw.
    #[error("condition field `{field}`: `{got}` was not seen in training; known: {known}")]
    FieldWord {
        /// The field's name.
        field: String,
        /// The word given.
        got: String,
        /// The words known.
        known: String,
    },
    /// A field takes more numbers than it may.
    #[error("condition field `{field}` takes {width} numbers, more than {max}")]
    FieldWidth {
        /// The field's name.
        field: String,
        /// The numbers that it takes.
        width: usize,
        /// The most allowed.
        max: usize,
    },
    /// A text does not name a set of classes, or a data set lacks one of them.
    #[error("`{got}` is not a set of classes such as `0+3+7`: {reason}")]
    Classes {
        /// The set.
        got: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A task maps classes to outputs that there are not.
    #[error("task `{task}`: {reason}")]
    Task {
        /// The task's name.
        task: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Tasks cannot be divided into those to train on and those that are held out.
    #[error("held-out tasks: {reason}")]
    HeldOut {
        /// Why not.
        reason: String,
    },
    /// Labelled examples do not fit each other, or the networks that they are for.
    #[error("labelled examples: {reason}")]
    Examples {
        /// How not.
        reason: String,
    },
    /// Inputs without labels do not fit each other, or the networks that they are for.
    #[error("example inputs: {reason}")]
    Inputs {
        /// How not.
        reason: String,
    },
    /// A digest is not 64 hexadecimal digits.
    #[error("`{0}` is not a digest (64 hexadecimal digits)")]
    Digest(String),
    /// A word is not one of a closed set.
    #[error("unknown {what} `{got}`; known: {known}")]
    Word {
        /// What the word should name.
        what: &'static str,
        /// The word given.
        got: String,
        /// The words known.
        known: &'static str,
    },
}
