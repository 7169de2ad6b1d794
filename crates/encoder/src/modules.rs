//! The modules of a sentence-transformers folder: which there are, in which order, and what each says.

use std::path::{Component, Path, PathBuf};

use contaccum_files::read_json_if_there;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::EncoderError;

pub(crate) type Fields = Map<String, Value>;

/// Widths of a `Dense` module are bounded so that the number of parameters stays far from overflow.
const WIDEST: u64 = 1 << 16;

pub(crate) fn unsupported(place: &Path, what: String) -> EncoderError {
    EncoderError::Unsupported { place: place.display().to_string(), what }
}

/// A `Dense` module: a linear layer on the vector, and an activation. Its inputs are the outputs of what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// Width of its vectors.
    pub outputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// What comes behind the product.
    pub activation: DenseActivation,
}

/// The activation of a `Dense` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// `tanh x`.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

impl DenseActivation {
    const ALL: [Self; 4] = [Self::Identity, Self::Tanh, Self::Relu, Self::Sigmoid];

    /// PyTorch's class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Identity => "torch.nn.modules.linear.Identity",
            Self::Tanh => "torch.nn.modules.activation.Tanh",
            Self::Relu => "torch.nn.modules.activation.ReLU",
            Self::Sigmoid => "torch.nn.modules.activation.Sigmoid",
        }
    }

    fn name(self) -> &'static str {
        self.class().rsplit('.').next().unwrap_or_default()
    }
}

impl std::fmt::Display for DenseShape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{} {}{}",
            self.outputs,
            self.activation.name(),
            if self.bias { "" } else { " without bias" }
        )
    }
}

/// Where the parts of a model folder lie: what `modules.json` says, or everything at the top without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modules {
    /// Folder of `config.json`, weights and tokenizer, relative to the model folder.
    pub(crate) transformer: PathBuf,
    /// Folder of the pooling's `config.json`; `None` in a plain Hugging Face folder.
    pub(crate) pooling: Option<PathBuf>,
    /// Folders of the `Dense` modules, in their order.
    pub(crate) dense: Vec<PathBuf>,
    /// Whether vectors are normalised at the end.
    pub(crate) normalize: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Modules {
    pub(crate) fn read(folder: &Path) -> Result<Self, EncoderError> {
        let place = folder.join("modules.json");
        let Some(modules) = read_json_if_there::<Vec<Module>>(&place)? else {
            return Ok(Self {
                transformer: PathBuf::new(),
                pooling: None,
                dense: Vec::new(),
                normalize: false,
            });
        };
        let mut kinds = Vec::new();
        for module in &modules {
            // A module's path comes from a download: it may not point out of its folder.
            if !Path::new(&module.path).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(unsupported(&place, format!("module path {:?} leaves the folder", module.path)));
            }
            kinds.push(module_kind(&module.kind).ok_or_else(|| {
                let known = "Transformer, Pooling, Dense and Normalize of sentence-transformers are";
                unsupported(&place, format!("module {} is not supported; only {known}", module.kind))
            })?);
        }
        let (before, normalize) = match kinds.split_last() {
            Some((&"Normalize", before)) => (before, true),
            _ => (&kinds[..], false),
        };
        let in_order = matches!(before, ["Transformer", "Pooling", dense @ ..] if dense.iter().all(|kind| *kind == "Dense"));
        if !in_order {
            let what = format!("modules {kinds:?} in this order are not supported");
            let remedy = "Transformer, Pooling, perhaps Dense and perhaps Normalize must follow each other";
            return Err(unsupported(&place, format!("{what}; {remedy}")));
        }
        if let (true, Some(last)) = (normalize, modules.last()) {
            let place = folder.join(&last.path).join("config.json");
            check_names(&place, &read_json_if_there(&place)?.unwrap_or_default())?;
        }
        Ok(Self {
            transformer: PathBuf::from(&modules[0].path),
            pooling: Some(PathBuf::from(&modules[1].path)),
            dense: modules[2..before.len()].iter().map(|module| PathBuf::from(&module.path)).collect(),
            normalize,
        })
    }

    /// What the `Dense` modules say; the first takes vectors of `width`.
    pub(crate) fn dense_shapes(&self, folder: &Path, width: usize) -> Result<Vec<DenseShape>, EncoderError> {
        let mut width = width;
        let mut read = |path: &PathBuf| {
            let shape = read_dense(&folder.join(path).join("config.json"), width)?;
            width = shape.outputs;
            Ok(shape)
        };
        self.dense.iter().map(&mut read).collect()
    }
}

/// The class a module type names, if it is one of sentence-transformers' that we know: the two schemas differ in
/// what stands between the package and the class.
fn module_kind(kind: &str) -> Option<&'static str> {
    let (_, class) = kind.strip_prefix("sentence_transformers.")?.rsplit_once('.')?;
    ["Transformer", "Pooling", "Dense", "Normalize"].into_iter().find(|known| *known == class)
}

/// The new schema can work on something other than the sentence's vector.
fn check_names(place: &Path, fields: &Fields) -> Result<(), EncoderError> {
    for name in ["module_input_name", "module_output_name"] {
        let value = fields.get(name).unwrap_or(&Value::Null);
        if !(value.is_null() || value == "sentence_embedding") {
            let what = format!("{name} {value} is not supported; only sentence_embedding is");
            return Err(unsupported(place, what));
        }
    }
    Ok(())
}

fn read_dense(place: &Path, width: usize) -> Result<DenseShape, EncoderError> {
    let fields: Fields = read_json_if_there(place)?.ok_or_else(|| EncoderError::FileMissing {
        path: place.into(),
        remedy: "modules.json names a Dense module; fetch its folder too".into(),
    })?;
    check_names(place, &fields)?;
    if fields.get("use_residual") == Some(&Value::Bool(true)) {
        return Err(unsupported(place, "use_residual true is not supported; a plain Dense is".into()));
    }
    let number = |name: &str| {
        let value = fields.get(name).unwrap_or(&Value::Null);
        let number = value.as_u64().filter(|number| (1..=WIDEST).contains(number));
        let what = || format!("{name} is {value}; it must be a number from 1 to {WIDEST}");
        number.map(|number| number as usize).ok_or_else(|| unsupported(place, what()))
    };
    let (inputs, outputs) = (number("in_features")?, number("out_features")?);
    if inputs != width {
        let what = format!("in_features {inputs}, but the vectors before it have {width} dimensions");
        return Err(unsupported(place, format!("{what}; the files must belong to one model")));
    }
    // Without the fields a bias and a tanh, as in Python.
    let bias = match fields.get("bias") {
        None => true,
        Some(Value::Bool(bias)) => *bias,
        Some(other) => {
            return Err(unsupported(place, format!("bias is {other}; it must be true or false")));
        }
    };
    let class = fields.get("activation_function").and_then(Value::as_str);
    let class = class.unwrap_or(DenseActivation::Tanh.class());
    let named = |activation: &DenseActivation| {
        class.starts_with("torch.nn.") && class.rsplit('.').next() == Some(activation.name())
    };
    let activation = DenseActivation::ALL.into_iter().find(named).ok_or_else(|| {
        let known = DenseActivation::ALL.map(DenseActivation::name).join(", ");
        unsupported(place, format!("activation_function {class} is not supported; {known} of torch.nn are"))
    })?;
    Ok(DenseShape { outputs, bias, activation })
}
