//! The `If-Match` of a PATCH: which ICE session it is for.

use common::message::IfMatch;

use crate::error::{ApiError, ApiResult, Code};

/// Reads the header's values (RFC 9110, section 13.1.1).
///
/// # Errors
/// `precondition_required` without any (RFC 9725, section 4.3.1), `invalid_request` for what is not of its grammar.
pub fn read(values: &[&str]) -> ApiResult<IfMatch> {
    if values.is_empty() {
        let detail = "If-Match is required: the ETag of the ICE session for candidates, * for an ICE restart";
        return Err(ApiError::new(Code::PreconditionRequired, detail));
    }
    if let [only] = values
        && only.trim() == "*"
    {
        return Ok(IfMatch::Any);
    }
    let mut tags = Vec::new();
    for value in values {
        let mut rest = value.trim();
        while !rest.is_empty() {
            let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
            let tag = tag.strip_prefix('"').and_then(|tag| tag.split_once('"'));
            let (tag, after) =
                tag.ok_or_else(|| ApiError::invalid("If-Match is neither * nor entity-tags"))?;
            // Weak ones never match (section 8.8.3.2).
            if !is_weak {
                tags.push(tag.to_owned());
            }
            rest = after.trim_start();
            rest = match (rest.is_empty(), rest.strip_prefix(',')) {
                (true, _) => rest,
                (false, Some(next)) => next.trim_start(),
                (false, None) => return Err(ApiError::invalid("If-Match is neither * nor entity-tags")),
            };
        }
    }
    Ok(IfMatch::Tags(tags))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_any_and_lists() {
        assert_eq!(read(&["*"]), Ok(IfMatch::Any));
        let tags = |tags: &[&str]| Ok(IfMatch::Tags(tags.iter().map(|it| it.to_string()).collect()));
        assert_eq!(read(&["\"a+/b\""]), tags(&["a+/b"]));
        assert_eq!(read(&["\"a\" , W/\"b\",\"c\"", " \"d\""]), tags(&["a", "c", "d"]));
        assert_eq!(read(&[""]), tags(&[]));
    }

    #[test]
    fn refuses_what_it_is_not() {
        assert_eq!(read(&[]).unwrap_err().code, Code::PreconditionRequired);
        for wrong in ["a", "\"a", "\"a\" \"b\"", "*, \"a\"", "\"a\"x"] {
            assert_eq!(read(&[wrong]).unwrap_err().code, Code::InvalidRequest, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(values in proptest::collection::vec("\\PC*", 0..4)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let _ = read(&values);
        }
    }
}
