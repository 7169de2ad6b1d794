//! A model of the lowest layers of another: a weaker start that still is a real, pretrained one.
//!
//! ```text
//! cargo run --release -p contaccum-study --example lowest_layers -- MODEL LAYERS OUT
//! ```
//!
//! OUT is MODEL, a BERT's folder with one `model.safetensors`, without the layers from LAYERS on.

use std::fs;
use std::path::Path;

use anyhow::Context;
use safetensors::SafeTensors;
use serde_json::Value;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, layers, out] = &arguments[..] else { anyhow::bail!("usage: lowest_layers MODEL LAYERS OUT") };
    let (model, layers, out) = (Path::new(model), layers.parse::<usize>()?, Path::new(out));
    copy_folder(model, out)?;
    keep_layers(&out.join("model.safetensors"), layers)?;
    let config = out.join("config.json");
    let mut fields: Value = serde_json::from_slice(&read(&config)?)?;
    anyhow::ensure!(fields["num_hidden_layers"].as_u64() >= Some(layers as u64), "it has fewer layers");
    fields["num_hidden_layers"] = layers.into();
    Ok(fs::write(&config, serde_json::to_vec_pretty(&fields)?)?)
}

fn keep_layers(path: &Path, layers: usize) -> anyhow::Result<()> {
    let bytes = read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let kept = tensors.iter().filter(|(name, _)| layer_of(name).is_none_or(|layer| layer < layers));
    fs::write(path, safetensors::serialize(kept, None)?)
        .with_context(|| format!("not written: {}", path.display()))
}

/// The layer that a tensor's name says it is of.
fn layer_of(name: &str) -> Option<usize> {
    let (_, of) = name.split_once("layer.")?;
    of.split('.').next()?.parse().ok()
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("not readable: {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().expect("an entry of a folder has a name"));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::write(&target, read(&path)?)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("not readable: {}", path.display()))
}
