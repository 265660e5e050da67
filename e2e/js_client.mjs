// One check of the AWS SDK for JavaScript, named by the first argument. It ends with an exception
// where something is not as it should be.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { E2E_ENDPOINT, E2E_BUCKET, E2E_FILES, E2E_MODULES } = process.env;
const require = createRequire(`${E2E_MODULES}/package.json`);
const sdk = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const MIB = 1024 * 1024;
const SIZES = { 0: 0, 1: 1, "8MiB-1": 8 * MIB - 1, "8MiB": 8 * MIB, "100MiB": 100 * MIB };
const ODD_KEYS = ["a//b", "a%2Fb", "plus+sign", "space here", "ümlaut", "日本語", "../up", "a&b=c?d#e", "'quote'", "(x)!*"];

const region = process.env.AWS_DEFAULT_REGION;
const settings = { region, endpoint: E2E_ENDPOINT, forcePathStyle: true, maxAttempts: 1 };
const s3 = new sdk.S3Client(settings);
const Bucket = E2E_BUCKET;
const key = (name) => `js/${name}`;
const file = (name) => readFileSync(`${E2E_FILES}/${name}`);
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

const put = (name, Body, more = {}) =>
  s3.send(new sdk.PutObjectCommand({ Bucket, Key: key(name), Body, ...more }));
const head = (name, more = {}) =>
  s3.send(new sdk.HeadObjectCommand({ Bucket, Key: key(name), ...more }));

async function get(name, more = {}) {
  const answer = await s3.send(new sdk.GetObjectCommand({ Bucket, Key: key(name), ...more }));
  return { ...answer, bytes: Buffer.from(await answer.Body.transformToByteArray()) };
}

async function refused(promise, name, status) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.name, name);
    assert.equal(error.$metadata.httpStatusCode, status);
    return;
  }
  assert.fail(`${name} was expected`);
}

const checks = {
  async sizes() {
    for (const [name, size] of Object.entries(SIZES)) {
      const Body = file(name);
      // Small bodies go in one request, large ones in parts, with the checksums that are the default.
      await new Upload({ client: s3, params: { Bucket, Key: key(`size/${name}`), Body } }).done();
      const found = await get(`size/${name}`);
      assert.equal(found.bytes.length, size);
      assert.equal(digest(found.bytes), digest(Body), name);
    }
  },

  async "odd keys"() {
    for (const name of ODD_KEYS) {
      await put(`odd/${name}`, name);
      assert.equal((await get(`odd/${name}`)).bytes.toString(), name);
    }
    const page = await s3.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: key("odd/") }));
    const expected = ODD_KEYS.map((name) => key(`odd/${name}`));
    const bytewise = (one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other));
    assert.deepEqual(page.Contents.map((entry) => entry.Key), expected.sort(bytewise));
  },

  async ranges() {
    await put("range", "0123456789");
    const part = await get("range", { Range: "bytes=2-4" });
    assert.equal(part.bytes.toString(), "234");
    assert.equal(part.ContentRange, "bytes 2-4/10");
    assert.equal((await get("range", { Range: "bytes=-3" })).bytes.toString(), "789");
    await refused(get("range", { Range: "bytes=10-" }), "InvalidRange", 416);
  },

  async conditions() {
    const { ETag } = await put("condition", "one", { IfNoneMatch: "*" });
    await refused(put("condition", "two", { IfNoneMatch: "*" }), "PreconditionFailed", 412);
    await refused(put("condition", "two", { IfMatch: '"0"' }), "PreconditionFailed", 412);
    await put("condition", "two", { IfMatch: ETag });
    await refused(get("condition", { IfMatch: ETag }), "PreconditionFailed", 412);
    assert.equal((await get("condition")).bytes.toString(), "two");
  },

  async copies() {
    await put("source +%2F", "copied", { Metadata: { colour: "red" }, ContentType: "text/css" });
    const CopySource = encodeURIComponent(`${Bucket}/${key("source +%2F")}`);
    const copy = (name, more = {}) =>
      s3.send(new sdk.CopyObjectCommand({ Bucket, Key: key(name), CopySource, ...more }));
    await copy("copy");
    const kept = await get("copy");
    assert.equal(kept.bytes.toString(), "copied");
    assert.deepEqual([kept.Metadata, kept.ContentType], [{ colour: "red" }, "text/css"]);
    await copy("copy", { MetadataDirective: "REPLACE", Metadata: { colour: "blue" } });
    assert.deepEqual((await head("copy")).Metadata, { colour: "blue" });
    await copy("summed", { ChecksumAlgorithm: "SHA256" });
    const { ChecksumSHA256 } = await head("summed", { ChecksumMode: "ENABLED" });
    assert.equal(ChecksumSHA256, createHash("sha256").update("copied").digest("base64"));
  },

  async "tags and attributes"() {
    await put("tagged", "x", { Tagging: "a=1&b=2", ChecksumAlgorithm: "CRC32C" });
    const tags = await s3.send(new sdk.GetObjectTaggingCommand({ Bucket, Key: key("tagged") }));
    assert.deepEqual(tags.TagSet, [{ Key: "a", Value: "1" }, { Key: "b", Value: "2" }]);
    const ObjectAttributes = ["ETag", "Checksum", "ObjectSize"];
    const found = await s3.send(
      new sdk.GetObjectAttributesCommand({ Bucket, Key: key("tagged"), ObjectAttributes }),
    );
    assert.equal(found.ObjectSize, 1);
    assert.ok(found.Checksum.ChecksumCRC32C);
  },

  async presigned() {
    const Key = key("presigned");
    const fresh = { ...settings, requestChecksumCalculation: "WHEN_REQUIRED" };
    const client = new sdk.S3Client(fresh);
    const upload = await getSignedUrl(client, new sdk.PutObjectCommand({ Bucket, Key }));
    assert.equal((await fetch(upload, { method: "PUT", body: "signed" })).status, 200);
    const download = await getSignedUrl(client, new sdk.GetObjectCommand({ Bucket, Key }));
    const answer = await fetch(download);
    assert.equal(await answer.text(), "signed");
    assert.equal((await fetch(`${download}x`)).status, 403);
  },

  async listing() {
    for (let n = 0; n < 7; n += 1) await put(`list/${n}/leaf`, "x");
    const found = [];
    const pages = sdk.paginateListObjectsV2({ client: s3, pageSize: 3 }, { Bucket, Prefix: key("list/"), Delimiter: "/" });
    for await (const page of pages) found.push(...page.CommonPrefixes.map((entry) => entry.Prefix));
    assert.deepEqual(found, [0, 1, 2, 3, 4, 5, 6].map((n) => key(`list/${n}/`)));
  },

  async errors() {
    await refused(get("none"), "NoSuchKey", 404);
    await refused(head("none"), "NotFound", 404);
    const credentials = { accessKeyId: process.env.AWS_ACCESS_KEY_ID, secretAccessKey: "wrong" };
    const forged = new sdk.S3Client({ ...settings, credentials });
    await refused(forged.send(new sdk.ListObjectsV2Command({ Bucket })), "SignatureDoesNotMatch", 403);
    const nowhere = new sdk.ListObjectsV2Command({ Bucket: "no-such-bucket-here" });
    await refused(s3.send(nowhere), "NoSuchBucket", 404);
  },

  async deletes() {
    const Objects = [];
    for await (const page of sdk.paginateListObjectsV2({ client: s3 }, { Bucket, Prefix: key("") })) {
      Objects.push(...page.Contents.map(({ Key }) => ({ Key })));
    }
    const answer = await s3.send(new sdk.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
    assert.equal(answer.Deleted.length, Objects.length);
    const left = await s3.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: key("") }));
    assert.equal(left.KeyCount, 0);
  },
};

await checks[process.argv[2]]();
