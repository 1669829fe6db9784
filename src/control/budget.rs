//! How many bytes of answers may wait for clients to take them, all clients together.

use std::sync::Arc;

use keyframed_control::{ErrorObject, Response, code};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes of large answers at the same time. Pictures are what can be large.
pub const MOST: usize = 128 * 1024 * 1024;
/// Answers up to this size are not counted: a client has few of them, and must get one whatever others do.
const SMALL: usize = 8 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// Part of the budget, given back when this is dropped.
pub type Share = Option<OwnedSemaphorePermit>;

impl Budget {
    /// Of so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Takes what a response needs. One that there is no room for becomes an error, which needs none.
    pub fn charge(&self, response: Response) -> (Response, Share) {
        let bytes = size(&response);
        if bytes <= SMALL {
            return (response, None);
        }
        let share = u32::try_from(bytes).ok().and_then(|n| self.0.clone().try_acquire_many_owned(n).ok());
        if share.is_some() {
            return (response, share);
        }
        let why = match bytes > MOST {
            true => format!("the answer has {bytes} bytes; at most {MOST}"),
            false => {
                format!(
                    "the answer has {bytes} bytes, and clients have not taken theirs yet: try again later"
                )
            }
        };
        (Response { id: response.id, outcome: Err(ErrorObject::new(code::TOO_LARGE, why)) }, None)
    }
}

/// Bytes of a response, nearly: texts are what can be long.
pub fn size(response: &Response) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(s) => s.len() + 2,
            Value::Array(all) => all.iter().map(|v| of(v) + 1).sum(),
            Value::Object(all) => all.iter().map(|(k, v)| k.len() + 4 + of(v)).sum(),
            _ => 16,
        }
    }
    response.outcome.as_ref().map_or(128, of)
}

#[cfg(test)]
mod tests {
    use keyframed_control::Id;

    use super::*;

    fn response(bytes: usize) -> Response {
        Response { id: Id::from(1), outcome: Ok(Value::String("x".repeat(bytes))) }
    }

    #[test]
    fn large_answers_share_the_budget_and_small_ones_always_get_through() {
        let budget = Budget::of(100_000);
        let (first, share) = budget.charge(response(90_000));
        assert!(first.outcome.is_ok());
        let refused = budget.charge(response(20_000)).0.outcome.unwrap_err();
        assert!(refused.code == code::TOO_LARGE && refused.message.contains("try again"), "{refused}");
        assert!(budget.charge(response(SMALL - 2)).0.outcome.is_ok());
        drop(share);
        let (second, _share) = budget.charge(response(20_000));
        assert!(second.outcome.is_ok());
        let refused = Budget::of(MOST).charge(response(MOST)).0.outcome.unwrap_err();
        assert!(refused.message.contains("at most"), "{refused}");
    }
}
