//! Conditions on writes: decided in the commit, so that of racing writers exactly one wins.

use futures_util::future::join_all;

use super::support::{BUCKET, Request, Response, Server, path};

async fn upload(server: &Server, key: &str, body: &[u8]) -> Request {
    let created = server
        .send(Request::post(&format!("{}?uploads", path(key))))
        .await;
    let upload = created.expect(200).element("UploadId");
    let part = Request::put(&format!("{}?partNumber=1&uploadId={upload}", path(key))).body(body);
    let part = server.send(part).await.expect(200);
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag")
    );
    Request::post(&format!("{}?uploadId={upload}", path(key))).body(list.as_bytes())
}

fn copy(from: &str, to: &str) -> Request {
    Request::put(&path(to)).header("x-amz-copy-source", &format!("{BUCKET}/{from}"))
}

#[track_caller]
fn lost(answer: &Response) {
    assert_eq!(
        answer.verdict(),
        (412, "PreconditionFailed".into()),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn every_kind_of_write_takes_conditions() {
    let server = Server::start().await;
    let etag = server
        .put("k", b"one")
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let put = |key: &str| Request::put(&path(key)).body(b"two");
    let absent = |request: Request| request.header("if-none-match", "*");
    let same = |request: Request| request.header("if-match", &etag);
    let other = |request: Request| request.header("if-match", "\"0\"");
    lost(&server.send(absent(put("k"))).await);
    lost(&server.send(other(put("k"))).await);
    server.send(absent(copy("k", "k2"))).await.expect(200);
    lost(&server.send(absent(copy("k", "k2"))).await);
    lost(&server.send(other(copy("k", "k2"))).await);
    lost(
        &server
            .send(absent(upload(&server, "k", b"three").await))
            .await,
    );
    lost(
        &server
            .send(other(upload(&server, "k", b"three").await))
            .await,
    );
    lost(&server.send(other(Request::delete(&path("k")))).await);
    for missing in [
        same(put("none")),
        same(copy("k", "none")),
        same(upload(&server, "none", b"three").await),
    ] {
        let missing = server.send(missing).await;
        assert_eq!(missing.verdict(), (404, "NoSuchKey".into()));
    }
    assert_eq!(
        server.get("k").await.text(),
        "one",
        "nothing of all that has touched it"
    );
    // A Complete that lost can be made again without its condition.
    let complete = upload(&server, "k", b"four").await;
    lost(&server.send(absent(complete.clone())).await);
    server.send(complete).await.expect(200);
    assert_eq!(server.get("k").await.text(), "four");
}

#[tokio::test]
async fn deletes_take_conditions_each_key_its_own() {
    let server = Server::start().await;
    let one = server
        .put("one", b"1")
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    server.put("two", b"2").await.expect(200);
    let body = format!(
        "<Delete><Object><Key>one</Key><ETag>{one}</ETag></Object><Object><Key>two</Key><ETag>{one}</ETag></Object></Delete>"
    );
    let batch = Request::post(&format!("/{BUCKET}?delete")).body(body.as_bytes());
    let batch = batch.header("content-md5", &base::Md5::of(body.as_bytes()).to_base64());
    let answer = server.send(batch).await.expect(200);
    assert_eq!(answer.element("Code"), "PreconditionFailed");
    assert_eq!(server.get("one").await.status, 404);
    let two = server
        .get("two")
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let delete = Request::delete(&path("two")).header("if-match", &two);
    server.send(delete).await.expect(204);
    assert_eq!(server.get("two").await.status, 404);
}

#[tokio::test]
async fn of_writers_that_race_for_an_absent_key_exactly_one_wins() {
    let server = Server::start().await;
    server.put("source", b"copied").await.expect(200);
    for round in 0..5 {
        let key = format!("k{round}");
        let mut racers = vec![copy("source", &key), copy("source", &key)];
        for n in 0..4 {
            racers.push(Request::put(&path(&key)).body(format!("put {n}").as_bytes()));
            let body = format!("upload {n}");
            racers.push(upload(&server, &key, body.as_bytes()).await);
        }
        let racers = racers
            .into_iter()
            .map(|racer| server.send(racer.header("if-none-match", "*")));
        let answers = join_all(racers).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(
            won,
            1,
            "{:?}",
            answers.iter().map(Response::verdict).collect::<Vec<_>>()
        );
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            lost(answer);
        }
    }
}
