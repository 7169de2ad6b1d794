//! MPNet (Song et al., arXiv 2004.09297): BERT without token types, whose attention adds a bias by distance to its scores.

use contaccum_kernels::BUCKETS;

use super::bert::{NAMES, Vocabulary, body};
use super::roberta::after_padding;
use super::{Decides, Family, Fields, Names};
use crate::Architecture;

pub(super) const MPNET: Family = Family {
    model_type: "mpnet",
    class: "MPNetModel",
    prefix: "mpnet.",
    names: Names {
        attention_inputs: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
        attention_output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        relative_bias: "encoder.relative_attention_bias",
        ..NAMES
    },
    read,
};

/// The row that transformers' MPNet gives padding, whatever `pad_token_id` says.
const PADDING_ROW: u32 = 1;

fn read(fields: &mut Fields) -> Result<Architecture, String> {
    // transformers reads the first 32 rows, whatever the table's size.
    let rows = fields.size("relative_attention_num_buckets", BUCKETS, BUCKETS..=1 << 16)?;
    let default = Vocabulary { size: 30527, padding: PADDING_ROW, padding_decides: Decides::Neither };
    let body = body(fields, default)?;
    after_padding(Architecture { relative_bias: Some(rows), ..body }, PADDING_ROW)
}
