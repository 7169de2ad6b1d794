//! DistilBERT (Sanh et al., arXiv 1910.01108): BERT without token types, under names of its own.

use super::{Decides, Family, Fields, Names};
use crate::Architecture;
use crate::architecture::{DropoutRates, FeedForwardShape, LayerShape, NormPlace, NormShape, PositionTable};

pub(super) const DISTILBERT: Family = Family {
    model_type: "distilbert",
    class: "DistilBertModel",
    prefix: "distilbert.",
    names: Names {
        words: "embeddings.word_embeddings",
        positions: "embeddings.position_embeddings",
        types: "",
        embedding_norm: "embeddings.LayerNorm",
        layers: "transformer.layer",
        attention_inputs: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        feed_forward_input: "ffn.lin1",
        feed_forward_output: "ffn.lin2",
        feed_forward_norm: "output_layer_norm",
        relative_bias: "",
        final_norm: "",
    },
    read,
};

fn read(fields: &mut Fields) -> Result<Architecture, String> {
    let [width, heads] = fields.width_and_heads(["dim", "n_heads"], [768, 12])?;
    let layers = fields.size("n_layers", 6, 1..=1 << 10)?;
    let vocabulary = fields.size("vocab_size", 30522, 1..=1 << 24)?;
    let positions = fields.size("max_position_embeddings", 512, 3..=1 << 24)?;
    let dropout = fields.dropout("dropout", 0.1)?;
    // Sinusoids are what fresh positions begin as: a trained model's are in its weights.
    fields.neutral("sinusoidal_pos_embds", false)?;
    Ok(Architecture {
        width,
        vocabulary,
        padding: fields.padding(0, vocabulary, Decides::Neither)?,
        longest: positions,
        positions: Some(PositionTable { rows: positions, padding_row: None }),
        rotary_bases: Vec::new(),
        relative_bias: None,
        token_types: 0,
        norm: NormShape { place: NormPlace::After, bias: true, epsilon: 1e-12 },
        heads,
        attention_bias: true,
        feed_forward: FeedForwardShape {
            width: fields.size("hidden_dim", 3072, 1..=1 << 20)?,
            activation: fields.activation("activation")?,
            gated: false,
            bias: true,
        },
        layers: vec![LayerShape::PLAIN; layers],
        dropout: DropoutRates {
            embeddings: dropout,
            attention: fields.dropout("attention_dropout", 0.1)?,
            // transformers drops nothing of the attention block's output here.
            attention_output: 0.0,
            feed_forward_inner: 0.0,
            feed_forward_output: dropout,
        },
        initializer_range: fields.initializer_range()?,
    })
}
