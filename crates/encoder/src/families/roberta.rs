//! RoBERTa (Liu et al., arXiv 1907.11692) and XLM-RoBERTa (bge-m3, multilingual E5, Arctic Embed 2): BERT whose positions
//! count on from the padding token's row.

use serde_json::json;

use super::bert::{NAMES, Vocabulary, body};
use super::{Decides, Family, Fields};
use crate::Architecture;
use crate::architecture::PositionTable;

pub(super) const ROBERTA: Family = Family {
    model_type: "roberta",
    class: "RobertaModel",
    prefix: "roberta.",
    names: NAMES,
    read: |fields| read(fields, 50265),
};

pub(super) const XLM_ROBERTA: Family = Family {
    model_type: "xlm-roberta",
    class: "XLMRobertaModel",
    read: |fields| read(fields, 30522),
    ..ROBERTA
};

fn read(fields: &mut Fields, vocabulary: usize) -> Result<Architecture, String> {
    fields.only("position_embedding_type", &json!("absolute"), "only \"absolute\" is")?;
    fields.only("is_decoder", &json!(false), "an encoder attends in both directions")?;
    let token_types = fields.size("type_vocab_size", 2, 1..=1 << 8)?;
    let default = Vocabulary { size: vocabulary, padding: 1, padding_decides: Decides::Vectors };
    let body = body(fields, default)?;
    let padding_row = body.padding;
    after_padding(Architecture { token_types, ..body }, padding_row)
}

/// Positions that count on from behind the row of padding.
pub(super) fn after_padding(body: Architecture, padding_row: u32) -> Result<Architecture, String> {
    let table = PositionTable { rows: body.longest, padding_row: Some(padding_row) };
    match body.longest.checked_sub(table.first() as usize) {
        Some(longest @ 3..) => Ok(Architecture { longest, positions: Some(table), ..body }),
        _ => Err(format!(
            "max_position_embeddings {} leaves no positions: the first is {}",
            body.longest,
            table.first()
        )),
    }
}
