//! Web pages of other origins, end to end.

use http::Method;

use super::support::{
    Auth, BUCKET, OTHER_BUCKET, OTHER_KEY, OTHER_SECRET, Options, Request, Server, path,
};

const RULES: &str = "    cors:
      - allowed_origins: ['https://*.example.com']
        allowed_methods: [GET, PUT]
        allowed_headers: ['x-amz-*', content-type]
        expose_headers: [ETag]
        max_age: 600
";

async fn server() -> Server {
    Server::with(Options {
        bucket: RULES,
        ..Options::default()
    })
    .await
}

fn preflight(target: &str, origin: &str, method: &str) -> Request {
    Request::new(Method::OPTIONS, target)
        .auth(Auth::None)
        .header("origin", origin)
        .header("access-control-request-method", method)
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_signature() {
    let server = server().await;
    let page = "https://app.example.com";
    let asked = preflight(&path("k"), page, "PUT")
        .header("access-control-request-headers", "x-amz-date,content-type");
    let answer = server.send(asked).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), page);
    assert_eq!(answer.header("access-control-allow-methods"), "GET, PUT");
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "x-amz-date,content-type"
    );
    assert_eq!(answer.header("access-control-expose-headers"), "etag");
    assert_eq!(answer.header("access-control-max-age"), "600");
    assert!(answer.header("vary").contains("Origin"));
    for (request, status, code) in [
        (
            preflight(&path("k"), page, "DELETE"),
            403,
            "AccessForbidden",
        ),
        (
            preflight(&path("k"), "https://evil.test", "GET"),
            403,
            "AccessForbidden",
        ),
        (
            preflight(&format!("/{OTHER_BUCKET}/k"), page, "GET"),
            403,
            "AccessForbidden",
        ),
        (preflight("/", page, "GET"), 403, "AccessForbidden"),
        (
            Request::new(Method::OPTIONS, &path("k")).auth(Auth::None),
            400,
            "BadRequest",
        ),
    ] {
        let answer = server.send(request).await;
        assert_eq!(answer.verdict(), (status, code.into()));
        assert!(answer.header("access-control-allow-origin").is_empty());
    }
}

#[tokio::test]
async fn answers_carry_what_the_browser_needs_errors_too() {
    let server = server().await;
    let page = "https://app.example.com";
    server.put("k", b"x").await.expect(200);
    for (key, status) in [("k", 200), ("absent", 404)] {
        let request = Request::get(&path(key)).header("origin", page);
        let answer = server.send(request).await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), page);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(answer.header("vary").contains("Origin"));
    }
    let other = Request::get(&path("k")).header("origin", "https://evil.test");
    let answer = server.send(other).await.expect(200);
    assert!(answer.header("access-control-allow-origin").is_empty());
    assert!(answer.header("vary").contains("Origin"));
    let plain = server.get("k").await.expect(200);
    assert!(plain.header("vary").is_empty());
}

#[tokio::test]
async fn the_rules_can_be_read_but_not_written() {
    let server = server().await;
    let shown = server
        .send(Request::get(&format!("/{BUCKET}?cors")))
        .await
        .expect(200);
    assert_eq!(shown.element("AllowedOrigin"), "https://*.example.com");
    assert_eq!(shown.elements("AllowedMethod"), ["GET", "PUT"]);
    assert_eq!(shown.element("MaxAgeSeconds"), "600");
    let none = Request::get(&format!("/{OTHER_BUCKET}?cors")).key(OTHER_KEY, OTHER_SECRET);
    let none = server.send(none).await;
    assert_eq!(none.verdict(), (404, "NoSuchCORSConfiguration".into()));
    for request in [
        Request::put(&format!("/{BUCKET}?cors")),
        Request::delete(&format!("/{BUCKET}?cors")),
    ] {
        let refused = server.send(request).await;
        assert_eq!(refused.verdict(), (501, "NotImplemented".into()));
    }
}
