//! hexells' JSON: many small texture automata of one architecture, their weights as pixels.
//!
//! Each layer is one image of `columns × rows` tiles (`layout`), a tile for each automaton, row by row. A tile has a
//! line of pixels for each input and one more for the bias, and four outputs in each pixel's red, green, blue and
//! alpha: line `i`, pixel `j`, channel `c` is the weight from input `i` to output `4j + c`. The weight of a byte `b`
//! is `(b/255 − 127/255) · scale`.
//!
//! A layer's tensors are `layers.{l}.weight` (out × in) and `layers.{l}.bias`.
//!
//! # References
//! Mordvintsev and Niklasson, "`μNCA`: texture generation with ultra-compact neural cellular automata" (2021); hexells,
//! `ca.js` (the shader of its dense layers).

use super::{Place, Source, SourceDtype, SourceFault, SourceFormat, SourceTensor};
use crate::mapped::MappedFile;
use crate::tensors::Metadata;
use crate::{Error, Result};
use base64::Engine;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// What all images together may have once they are decoded; a weight takes four times as much.
const MAX_IMAGE_BYTES: u64 = 16 << 20;

/// The byte of the weight 0.
const ZERO: f64 = 127.0;

#[derive(Deserialize)]
struct Models<'a> {
    model_names: Vec<String>,
    #[serde(borrow)]
    layers: Vec<Layer<'a>>,
}

#[derive(Deserialize)]
struct Layer<'a> {
    scale: f64,
    #[serde(borrow)]
    data: Cow<'a, str>,
    /// Inputs with the bias, and outputs.
    shape: [u64; 2],
    quant_scale_zero: [f64; 2],
    /// Tiles across and down.
    layout: [u64; 2],
}

pub(super) fn open(path: &Path) -> Result<Vec<Source>> {
    let fail = |fault| Error::Source { path: path.to_owned(), format: SourceFormat::Hexells, fault };
    let file = MappedFile::open(path)?;
    let len = file.bytes().len() as u64;
    if len > MAX_FILE_BYTES {
        return Err(fail(SourceFault::TooLarge { what: "the file".to_owned(), got: len, limit: MAX_FILE_BYTES }));
    }
    let models: Models<'_> =
        serde_json::from_slice(file.bytes()).map_err(|error| fail(SourceFault::malformed("its JSON", error.to_string())))?;
    models.check().map_err(fail)?;
    let mut sources: Vec<Source> = Vec::new();
    for name in &models.model_names {
        let mut source = Source::new(path, SourceFormat::Hexells, BTreeMap::new());
        source.member = Some(name.clone());
        source.metadata = models.metadata(name);
        sources.push(source);
    }
    for (l, layer) in models.layers.iter().enumerate() {
        let pixels = layer.pixels(l).map_err(fail)?;
        for (member, source) in sources.iter_mut().enumerate() {
            let (weight, bias) = layer.tile(&pixels, member);
            let [inputs, outputs] = layer.shape.map(|axis| axis as usize);
            let mut insert = |part: &str, shape: Vec<usize>, values: Vec<f32>| {
                let name = format!("layers.{l}.{part}");
                // They are bytes in the file; what is declared is what they are once decoded.
                let tensor = SourceTensor::new(name.clone(), shape, SourceDtype::F32, Place::Values(values.into()));
                source.tensors.insert(name, tensor);
            };
            insert("weight", vec![outputs, inputs - 1], weight);
            insert("bias", vec![outputs], bias);
        }
    }
    Ok(sources)
}

impl Models<'_> {
    fn check(&self) -> Result<(), SourceFault> {
        let mut seen = BTreeSet::new();
        if let Some(name) = self.model_names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(SourceFault::Duplicate { name: name.clone() });
        }
        if self.model_names.is_empty() || self.layers.is_empty() {
            return Err(SourceFault::Empty);
        }
        let mut room = MAX_IMAGE_BYTES;
        for (l, layer) in self.layers.iter().enumerate() {
            room -= layer.check(l, self.model_names.len() as u64, room)?;
            let next = self.layers.get(l + 1).map_or(layer.shape[1] + 1, |next| next.shape[0]);
            if next != layer.shape[1] + 1 {
                let field = format!("layers.{}.shape", l + 1);
                return Err(SourceFault::Setting { field, got: next.to_string(), expected: "one more than the outputs before" });
            }
        }
        Ok(())
    }

    fn metadata(&self, name: &str) -> Metadata {
        let mut metadata = Metadata::from([("name".to_owned(), name.to_owned())]);
        for (l, layer) in self.layers.iter().enumerate() {
            let [scale, zero] = layer.quant_scale_zero;
            metadata.insert(format!("layers.{l}.scale"), layer.scale.to_string());
            metadata.insert(format!("layers.{l}.output-scale"), scale.to_string());
            metadata.insert(format!("layers.{l}.output-zero"), zero.to_string());
        }
        metadata
    }
}

impl Layer<'_> {
    /// Checks the numbers; afterwards none of their products overflows. Returns the size of the image, at most `room`.
    fn check(&self, l: usize, members: u64, room: u64) -> Result<u64, SourceFault> {
        let refuse =
            |field: &str, got: String, expected| Err(SourceFault::Setting { field: format!("layers.{l}.{field}"), got, expected });
        if !self.scale.is_finite() || self.quant_scale_zero.iter().any(|value| !value.is_finite()) {
            return refuse("scale", self.scale.to_string(), "a finite number");
        }
        let [inputs, outputs] = self.shape;
        if inputs < 2 || outputs == 0 || outputs % 4 != 0 {
            return refuse("shape", format!("{:?}", self.shape), "inputs and a bias, and outputs by fours");
        }
        let [across, down] = self.layout;
        let bytes = [across, down, inputs, outputs].iter().try_fold(1u64, |size, &axis| size.checked_mul(axis));
        match bytes {
            Some(bytes) if bytes > 0 && bytes <= room && across * down >= members => Ok(bytes),
            _ => refuse("layout", format!("{:?}", self.layout), "a tile for each model, and images of at most 16 MiB in all"),
        }
    }

    /// Decodes the image: eight bits in each of four channels, of exactly the size that the numbers give.
    fn pixels(&self, l: usize) -> Result<Vec<u8>, SourceFault> {
        let fail = |reason: String| SourceFault::malformed(format!("the image of layer {l}"), reason);
        let (kind, text) = self.data.split_once(',').ok_or_else(|| fail("it is no data URL".to_owned()))?;
        if !kind.eq_ignore_ascii_case("data:image/png;base64") {
            return Err(fail("it is no PNG in base64".to_owned()));
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| fail(error.to_string()))?;
        let limits = png::Limits { bytes: 4 * MAX_IMAGE_BYTES as usize };
        let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), limits);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let mut reader = decoder.read_info().map_err(|error| fail(error.to_string()))?;
        let [width, height] = [self.layout[0] * self.shape[1] / 4, self.layout[1] * self.shape[0]];
        let info = reader.info();
        let is = (u64::from(info.width), u64::from(info.height), info.color_type, info.bit_depth);
        if is != (width, height, png::ColorType::Rgba, png::BitDepth::Eight) {
            return Err(fail(format!("it should be {width} × {height} of RGBA with 8 bits, it is {is:?}")));
        }
        let mut pixels = vec![0; (4 * width * height) as usize];
        reader.next_frame(&mut pixels).map_err(|error| fail(error.to_string()))?;
        Ok(pixels)
    }

    /// The weights (out × in) and biases of one member.
    fn tile(&self, pixels: &[u8], member: usize) -> (Vec<f32>, Vec<f32>) {
        let [inputs, outputs] = self.shape.map(|axis| axis as usize);
        let across = self.layout[0] as usize;
        let (left, top) = (member % across * outputs, member / across * inputs);
        let line_bytes = across * outputs;
        let value = |input: usize, output: usize| {
            let byte = pixels[(top + input) * line_bytes + left + output];
            ((f64::from(byte) - ZERO) / 255.0 * self.scale) as f32
        };
        let mut weight = Vec::with_capacity((inputs - 1) * outputs);
        for output in 0..outputs {
            weight.extend((0..inputs - 1).map(|input| value(input, output)));
        }
        (weight, (0..outputs).map(|output| value(inputs - 1, output)).collect())
    }
}
