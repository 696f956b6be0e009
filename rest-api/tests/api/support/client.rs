//! An HTTP client that checks every response against the OpenAPI document.

use std::sync::LazyLock;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(rest_api::openapi()).unwrap());

#[derive(Debug, Clone)]
pub enum Auth {
    None,
    Basic(&'static str, &'static str),
    Bearer(String),
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
    pub auth: Auth,
    headers: HeaderMap,
}

/// A response that is documented.
#[derive(Debug)]
pub struct Replied {
    pub status: u16,
    pub headers: HeaderMap,
    /// `null` without a JSON body.
    pub json: Value,
    pub text: String,
}

impl Replied {
    /// It is a problem of this code and status.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["type"], "about:blank");
        assert!(self.json["title"].is_string() && self.json["detail"].is_string(), "{self:?}");
    }
}

impl Client {
    pub fn new(url: &str, auth: Auth) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url: url.to_owned(), auth, headers: HeaderMap::new() }
    }

    /// The same client with other credentials.
    pub fn with(&self, auth: Auth) -> Self {
        Self { auth, ..self.clone() }
    }

    pub fn header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        client
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).headers(self.headers.clone());
        match &self.auth {
            Auth::None => request,
            Auth::Basic(id, secret) => request.basic_auth(id, Some(secret)),
            Auth::Bearer(token) => request.bearer_auth(token),
        }
    }

    pub async fn get(&self, path: &str) -> Replied {
        self.send(Method::GET, path, self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Replied {
        self.send(Method::POST, path, self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Replied {
        self.send(Method::PATCH, path, self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Replied {
        self.send(Method::DELETE, path, self.request(Method::DELETE, path)).await
    }

    /// Sends it and checks that the document knows this answer of this route.
    pub async fn send(&self, method: Method, path: &str, request: RequestBuilder) -> Replied {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let replied = Replied { status, headers, json, text };
        check_documented(&method, path, &replied);
        replied
    }
}

/// Whether the document has this status, content type and `code` for this route.
#[track_caller]
fn check_documented(method: &Method, path: &str, replied: &Replied) {
    let path = path.split('?').next().unwrap();
    let Some((template, item)) = find(path) else {
        assert_eq!(replied.status, 404, "{method} {path} is not documented and yet answers: {replied:?}");
        return;
    };
    let Some(operation) = item.get(method.as_str().to_lowercase()) else {
        assert_eq!(replied.status, 405, "{method} {template} is not documented and yet answers: {replied:?}");
        return;
    };
    let response = &operation["responses"][replied.status.to_string()];
    assert!(response.is_object(), "{method} {template} answers undocumented: {replied:?}");
    let content_type = replied.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
    match (response.get("content").and_then(Value::as_object), content_type) {
        (None, None) => {}
        (Some(documented), Some(given)) => {
            let given = given.split(';').next().unwrap();
            assert!(documented.contains_key(given), "{method} {template} answers {given}: {replied:?}");
        }
        (documented, given) => panic!("{method} {template}: content {documented:?} against {given:?}"),
    }
    if let Some(code) = replied.json["code"].as_str() {
        let described = response["description"].as_str().unwrap();
        assert!(described.contains(&format!("`{code}`")), "{method} {template} does not document {code}");
    }
    for name in response.get("headers").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name)
    {
        // A problem documents headers of any of its codes; a success has all of them.
        if replied.status < 300 {
            assert!(replied.headers.contains_key(name), "{method} {template} lacks {name}: {replied:?}");
        }
    }
}

fn find(path: &str) -> Option<(&'static str, &'static Value)> {
    let wanted: Vec<_> = path.split('/').collect();
    DOCUMENT["paths"].as_object().unwrap().iter().find_map(|(template, item)| {
        let parts: Vec<_> = template.split('/').collect();
        let fits = parts.len() == wanted.len()
            && parts
                .iter()
                .zip(&wanted)
                .all(|(part, given)| (part.starts_with('{') && !given.is_empty()) || part == given);
        fits.then_some((template.as_str(), item))
    })
}
