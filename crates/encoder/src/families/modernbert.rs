//! ModernBERT (Warner et al., arXiv 2412.13663; gte-modernbert, modernbert-embed, Ettin, mmBERT): norms before the blocks,
//! rotary positions, gated feed-forward layers, and windows in most layers.

use serde_json::{Value, json};

use super::{Decides, Family, Fields, Names};
use crate::Architecture;
use crate::architecture::{DropoutRates, FeedForwardShape, LayerShape, NormPlace, NormShape};

pub(super) const MODERNBERT: Family = Family {
    model_type: "modernbert",
    class: "ModernBertModel",
    prefix: "model.",
    names: Names {
        words: "embeddings.tok_embeddings",
        positions: "",
        types: "",
        embedding_norm: "embeddings.norm",
        layers: "layers",
        attention_inputs: &["attn.Wqkv"],
        attention_output: "attn.Wo",
        attention_norm: "attn_norm",
        feed_forward_input: "mlp.Wi",
        feed_forward_output: "mlp.Wo",
        feed_forward_norm: "mlp_norm",
        relative_bias: "",
        final_norm: "final_norm",
    },
    read,
};

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

fn read(fields: &mut Fields) -> Result<Architecture, String> {
    let [width, heads] = fields.width_and_heads(["hidden_size", "num_attention_heads"], [768, 12])?;
    if !(width / heads).is_multiple_of(2) {
        return Err(format!(
            "heads of {} columns are not supported; rotary positions turn pairs",
            width / heads
        ));
    }
    let vocabulary = fields.size("vocab_size", 50368, 1..=1 << 24)?;
    let attention_dropout = fields.dropout("attention_dropout", 0.0)?;
    Ok(Architecture {
        width,
        vocabulary,
        padding: fields.padding(50283.min(vocabulary as u32 - 1), vocabulary, Decides::Neither)?,
        longest: fields.size("max_position_embeddings", 8192, 3..=1 << 24)?,
        positions: None,
        rotary_bases: rotary_bases(fields)?.into(),
        relative_bias: None,
        token_types: 0,
        norm: NormShape {
            place: NormPlace::Before,
            bias: fields.of_vectors("norm_bias", false)?,
            epsilon: fields.epsilon("norm_eps", 1e-5)?,
        },
        heads,
        attention_bias: fields.of_vectors("attention_bias", false)?,
        feed_forward: FeedForwardShape {
            width: fields.size("intermediate_size", 1152, 1..=1 << 19)?,
            activation: fields.activation("hidden_activation")?,
            gated: true,
            bias: fields.of_vectors("mlp_bias", false)?,
        },
        layers: layers(fields)?,
        dropout: DropoutRates {
            embeddings: fields.dropout("embedding_dropout", 0.0)?,
            attention: attention_dropout,
            attention_output: attention_dropout,
            feed_forward_inner: fields.dropout("mlp_dropout", 0.0)?,
            feed_forward_output: 0.0,
        },
        initializer_range: fields.initializer_range()?,
    })
}

/// Which layers attend everywhere: as `layer_types` lists them (transformers 5), else every so many.
fn layers(fields: &mut Fields) -> Result<Vec<LayerShape>, String> {
    let count = fields.size("num_hidden_layers", 22, 1..=1 << 10)?;
    let every = fields.size("global_attn_every_n_layers", 3, 1..=1 << 10)?;
    let window = fields.size("local_attention", 128, 0..=1 << 24)? / 2;
    let by_rule = |layer: usize| if layer.is_multiple_of(every) { FULL } else { SLIDING };
    let by_rule: Vec<String> = (0..count).map(|layer| by_rule(layer).to_owned()).collect();
    let types: Vec<String> = fields.of_vectors("layer_types", by_rule)?;
    if types.len() != count {
        return Err(format!("layer_types lists {} layers, num_hidden_layers says {count}", types.len()));
    }
    let shape = |(layer, kind): (usize, &String)| {
        let (window, rotary) = match kind.as_str() {
            FULL => (None, 0),
            SLIDING => (Some(window), 1),
            other => return Err(format!("layer_types {other} is not supported; {FULL} and {SLIDING} are")),
        };
        Ok(LayerShape { window, rotary: Some(rotary), attention_norm: layer > 0 })
    };
    types.iter().enumerate().map(shape).collect()
}

/// The bases of full and of sliding attention: in `rope_parameters` (transformers 5), else by their old names. Both
/// spellings are written.
fn rotary_bases(fields: &mut Fields) -> Result<[f64; 2], String> {
    fields.only("rope_scaling", &Value::Null, "positions are turned as they are")?;
    let given = fields.given("rope_parameters");
    // Where the old name is given as null, the other's holds; left out, the default.
    let one_base = fields.is_null("local_rope_theta");
    if let Some(other) =
        given.as_object().into_iter().flatten().find(|(kind, _)| *kind != FULL && *kind != SLIDING)
    {
        return Err(format!(
            "rope_parameters of {} are not supported; those of {FULL} and {SLIDING} are",
            other.0
        ));
    }
    let mut base = |kind: &str, old_name: &str, default: f64| {
        let parameters = &given[kind];
        let rope_type = &parameters["rope_type"];
        if !(rope_type.is_null() || rope_type == "default") {
            return Err(format!("rope_type {rope_type} is not supported; only \"default\" is"));
        }
        let old = fields.of_vectors(old_name, default)?;
        let base = match &parameters["rope_theta"] {
            Value::Null => old,
            theta => theta.as_f64().ok_or_else(|| format!("rope_theta {theta} is not a number"))?,
        };
        fields.respell(old_name, json!(base));
        match base.is_finite() && base > 0.0 {
            true => Ok(base),
            false => Err(format!("{old_name} is {base}; it must be above 0")),
        }
    };
    let full = base(FULL, "global_rope_theta", 160_000.0)?;
    let default = if one_base { full } else { 10_000.0 };
    let sliding = base(SLIDING, "local_rope_theta", default)?;
    let parameters = |base: f64| json!({ "rope_type": "default", "rope_theta": base });
    fields.respell("rope_parameters", json!({ FULL: parameters(full), SLIDING: parameters(sliding) }));
    Ok([full, sliding])
}
