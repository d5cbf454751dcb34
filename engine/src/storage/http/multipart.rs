//! Answers to several requests that were sent as one: one part per request, with its number.

use ::http::header::{CONTENT_TYPE, HeaderMap};

/// The answer to one of the requests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The number of the request.
    pub(crate) id: Option<usize>,
    pub(crate) status: u16,
}

impl Part {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Returns the parts of an answer; none if it is not such an answer.
pub(crate) fn parts(headers: &HeaderMap, body: &[u8]) -> Vec<Part> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((_, boundary)) = kind.split_once("boundary=").filter(|_| kind.starts_with("multipart/mixed")) else {
        return Vec::new();
    };
    let boundary = format!("--{}", boundary.split(';').next().unwrap_or_default().trim().trim_matches('"'));
    String::from_utf8_lossy(body).split(&boundary).filter_map(part).collect()
}

fn part(text: &str) -> Option<Part> {
    let (mut id, mut status) = (None, None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.split(' ').next().and_then(|status| status.parse().ok());
            break;
        }
        // `1`, or `<response-1>`
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-id")
        {
            let value = value.trim().trim_end_matches('>');
            id = value.rsplit(|char: char| !char.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
        }
    }
    Some(Part { id, status: status? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())])
    }

    #[test]
    fn parts_have_numbers_and_statuses() {
        let body = "--b\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\nx: y\r\n\r\n\
            --b\r\ncontent-id: <response-12>\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n--b\r\n\r\nHTTP/1.1 403 x\r\n\r\n--b\r\nContent-ID: 3\r\n\r\n--b--";
        let part = |id, status| Part { id, status };
        for kind in ["multipart/mixed; boundary=b", "multipart/mixed; boundary=\"b\"; charset=x"] {
            let found = parts(&headers(kind), body.as_bytes());
            assert_eq!(found, [part(Some(0), 202), part(Some(12), 404), part(None, 403)], "{kind}");
        }
        assert!(parts(&headers("text/html; boundary=b"), body.as_bytes()).is_empty());
        assert!(parts(&HeaderMap::new(), body.as_bytes()).is_empty());
    }
}
