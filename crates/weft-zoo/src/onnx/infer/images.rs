//! Nodes that work on images, `[c, h, w]`.

use super::{Attributes, Id, Inference, Layer, Operand};
use crate::onnx::OnnxFault;
use crate::onnx::constant::Constant;
use crate::onnx::proto::NodeProto;
use weft_core::Window;

type Read = Result<Operand, OnnxFault>;

impl<'a> Inference<'a> {
    /// The window that a node's attributes describe.
    fn window(&self, attributes: Attributes<'a>, size: [usize; 2]) -> Result<Window, OnnxFault> {
        let list = |name: &str, default: usize| -> Option<Vec<usize>> {
            let Some(ints) = attributes.ints(name) else { return Some(vec![default; if name == "pads" { 4 } else { 2 }]) };
            ints.iter().map(|&i| usize::try_from(i).ok()).collect()
        };
        let fail = || self.fault("it is read with two spatial axes, and equal padding on both sides, only");
        let auto = attributes.text("auto_pad").unwrap_or(b"NOTSET");
        let pads = if auto == b"VALID" { Some(vec![0; 4]) } else { list("pads", 0) };
        if !matches!(auto, b"NOTSET" | b"VALID") {
            return Err(self.fault("its padding is not given in numbers (`auto_pad`)"));
        }
        let (Some(strides), Some(pads), Some(dilations)) = (list("strides", 1), pads, list("dilations", 1)) else {
            return Err(fail());
        };
        let (&[down, across], &[top, left, bottom, right]) = (strides.as_slice(), pads.as_slice()) else { return Err(fail()) };
        if (top, left) != (bottom, right) || down == 0 || across == 0 || size.contains(&0) {
            return Err(fail());
        }
        if dilations != [1, 1] {
            return Err(self.fault("it is dilated, for which there is no layer"));
        }
        Ok(Window { size, stride: [down, across], padding: [top, left] })
    }

    /// Height and width of what a window makes of an image.
    fn windowed(&self, window: Window, image: [usize; 2]) -> Result<[usize; 2], OnnxFault> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let padded = window.padding[axis].checked_mul(2).and_then(|padding| padding.checked_add(image[axis]));
            let room = padded.and_then(|padded| padded.checked_sub(window.size[axis]));
            let room = room.ok_or_else(|| self.fault("its window is larger than its input"))?;
            out[axis] = room / window.stride[axis] + 1;
        }
        Ok(out)
    }

    fn image(&self, x: Id) -> Result<[usize; 3], OnnxFault> {
        <[usize; 3]>::try_from(self.shape(x)).map_err(|_| self.fault("its input is no image [c, h, w]"))
    }

    fn image_shape(&self, shape: [usize; 3]) -> Result<Vec<usize>, OnnxFault> {
        super::num_values(&shape).ok_or_else(|| self.fault("its output has too many values"))?;
        Ok(shape.to_vec())
    }

    pub(super) fn convolution(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        let [channels, height, width] = self.image(x)?;
        let weight = self.given(node, 1)?.filter(|weight| weight.floats().is_some());
        let weight = weight.ok_or_else(|| self.fault("it has no weight of floats"))?;
        let [out, into, kernel_height, kernel_width] = weight.shape[..] else {
            return Err(self.fault("its weight has not four axes"));
        };
        let groups = usize::try_from(attributes.int("group", 1)).unwrap_or(0);
        if groups == 0 || into.checked_mul(groups) != Some(channels) || !out.is_multiple_of(groups) {
            return Err(self.fault("its weight or its groups do not fit its input"));
        }
        let window = self.window(attributes, [kernel_height, kernel_width])?;
        let [height, width] = self.windowed(window, [height, width])?;
        let shape = self.image_shape([out, height, width])?;
        let bias = self.given(node, 2)?;
        if bias.as_ref().is_some_and(|bias: &Constant| bias.shape != [out] || bias.floats().is_none()) {
            return Err(self.fault("its bias does not fit its output"));
        }
        let (stride, padding) = (window.stride, window.padding);
        Ok(Operand::Value(self.push(Layer::Conv { x, weight, bias, stride, padding, groups }, shape)))
    }

    pub(super) fn pool(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        let [channels, height, width] = self.image(x)?;
        let size = match attributes.ints("kernel_shape") {
            Some(&[height, width]) => usize::try_from(height).and_then(|height| Ok([height, usize::try_from(width)?])).ok(),
            _ => None,
        };
        let size = size.ok_or_else(|| self.fault("its window has not two axes"))?;
        let window = self.window(attributes, size)?;
        if attributes.int("ceil_mode", 0) != 0 {
            return Err(self.fault("it lets windows reach over the edge (`ceil_mode`), for which there is no layer"));
        }
        let counts_padding = attributes.int("count_include_pad", 0) != 0 && window.padding != [0, 0];
        if node.op_type == "AveragePool" && counts_padding {
            return Err(self.fault("it counts padding, for which there is no layer"));
        }
        let [height, width] = self.windowed(window, [height, width])?;
        let shape = self.image_shape([channels, height, width])?;
        let layer = if node.op_type == "MaxPool" { Layer::MaxPool(x, window) } else { Layer::AvgPool(x, window) };
        Ok(Operand::Value(self.push(layer, shape)))
    }

    pub(super) fn global_pool(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        let [channels, _, _] = self.image(x)?;
        Ok(self.global_mean(x, channels, vec![channels, 1, 1]))
    }

    /// The mean over positions, under the shape that the node gives it.
    pub(super) fn global_mean(&mut self, x: Id, width: usize, shape: Vec<usize>) -> Operand {
        let pooled = self.push(Layer::GlobalAvgPool(x), vec![width]);
        self.reshaped(pooled, shape)
    }
}
