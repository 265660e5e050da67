// One check of the AWS SDK for JavaScript, named by the first argument. It ends with an exception
// where something is not as it should be.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Readable } from "node:stream";

const { E2E_ENDPOINT, E2E_FILES, E2E_MODULES, E2E_ODD_KEYS, E2E_SIZES } = process.env;
const Bucket = process.env.E2E_BUCKET;
const require = createRequire(`${E2E_MODULES}/package.json`);
const sdk = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const MIB = 1024 * 1024;
// What `Upload` cuts its parts to where nothing else is asked for.
const PART = 5 * MIB;

const region = process.env.AWS_DEFAULT_REGION;
// One attempt, so that the first wrong answer counts. All else is as the SDK has it by default.
const settings = { region, endpoint: E2E_ENDPOINT, forcePathStyle: true, maxAttempts: 1 };
const s3 = new sdk.S3Client(settings);
const key = (name) => `js/${name}`;
const path = (name) => `${E2E_FILES}/${name}`;
const file = (name) => readFileSync(path(name));
const hash = (algorithm, bytes) => createHash(algorithm).update(bytes).digest("base64");
const bytewise = (one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other));

const send = (Command, name, more = {}) =>
  s3.send(new Command({ Bucket, Key: key(name), ...more }));
const put = (name, Body, more = {}) => send(sdk.PutObjectCommand, name, { Body, ...more });
const head = (name, more = {}) => send(sdk.HeadObjectCommand, name, more);
const remove = (name, more = {}) => send(sdk.DeleteObjectCommand, name, more);
const upload = (name, Body, more = {}) =>
  new Upload({ client: s3, params: { Bucket, Key: key(name), Body, ...more } }).done();

async function get(name, more = {}) {
  const answer = await send(sdk.GetObjectCommand, name, more);
  return { ...answer, bytes: Buffer.from(await answer.Body.transformToByteArray()) };
}

async function keys(prefix, pageSize = 1000) {
  const found = [];
  const asked = { Bucket, Prefix: key(prefix) };
  for await (const page of sdk.paginateListObjectsV2({ client: s3, pageSize }, asked)) {
    found.push(...(page.Contents ?? []).map((entry) => entry.Key));
  }
  return found;
}

function sameBytes(found, wanted, what) {
  assert.equal(found.length, wanted.length, `size of ${what}`);
  assert.equal(hash("sha256", found), hash("sha256", wanted), `bytes of ${what}`);
}

async function refused(promise, name, status) {
  try {
    await promise;
  } catch (error) {
    assert.deepEqual([error.name, error.$metadata?.httpStatusCode], [name, status]);
    return;
  }
  assert.fail(`${name} was expected`);
}

const stale = (promise) => refused(promise, "PreconditionFailed", 412);
// An answer without a body has no name here.
const unmodified = (promise) => refused(promise, "Unknown", 304);

const checks = {
  async sizes() {
    for (const [name, size] of Object.entries(JSON.parse(E2E_SIZES))) {
      const Body = file(name);
      // Small bodies go in one request, large ones in parts.
      await upload(`size/${name}`, Body);
      sameBytes((await get(`size/${name}`)).bytes, Body, name);
      const { ContentLength, ETag } = await head(`size/${name}`);
      assert.equal(ContentLength, size);
      const parts = size > PART ? `-${Math.ceil(size / PART)}"` : '"';
      assert.match(ETag, new RegExp(`^"[0-9a-f]{32}${parts}$`));
    }
  },

  async streams() {
    // A body that cannot be read twice goes with its checksum behind it.
    await put("stream/known", createReadStream(path("8MiB")), { ContentLength: 8 * MIB });
    sameBytes((await get("stream/known")).bytes, file("8MiB"), "a stream of known length");
    const pieces = [file("8MiB"), file("1"), file("8MiB-1")];
    await upload("stream/unknown", Readable.from(pieces));
    sameBytes((await get("stream/unknown")).bytes, Buffer.concat(pieces), "a stream");
    await upload("stream/empty", Readable.from([]));
    assert.equal((await head("stream/empty")).ContentLength, 0);
  },

  async algorithms() {
    // CRC64NVME needs a native library.
    for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "SHA1", "SHA256"]) {
      const name = `sum/${ChecksumAlgorithm}`;
      const field = `Checksum${ChecksumAlgorithm}`;
      const sent = await put(name, "summed", { ChecksumAlgorithm });
      const found = await get(name, { ChecksumMode: "ENABLED" });
      assert.equal(found.bytes.toString(), "summed");
      assert.ok(found[field], `no ${ChecksumAlgorithm} came back`);
      assert.equal(found[field], sent[field]);
      const stream = createReadStream(path("1"));
      await put(`${name}/stream`, stream, { ChecksumAlgorithm, ContentLength: 1 });
      sameBytes((await get(`${name}/stream`)).bytes, file("1"), name);
      await upload(`${name}/parts`, file("8MiB"), { ChecksumAlgorithm });
      const whole = await head(`${name}/parts`, { ChecksumMode: "ENABLED" });
      assert.match(whole[field], /-2$/, "a checksum of the checksums of two parts");
      sameBytes((await get(`${name}/parts`)).bytes, file("8MiB"), name);
    }
    const { ChecksumSHA256 } = await head("sum/SHA256", { ChecksumMode: "ENABLED" });
    assert.equal(ChecksumSHA256, hash("sha256", "summed"));
    await refused(put("sum/bad", "x", { ChecksumSHA256 }), "BadDigest", 400);
    await refused(head("sum/bad"), "NotFound", 404);
  },

  async multipart() {
    const whole = file("8MiB");
    const { UploadId } = await send(sdk.CreateMultipartUploadCommand, "multi");
    const Parts = [];
    for (const [at, end] of [[0, PART], [PART, 8 * MIB]]) {
      const PartNumber = Parts.length + 1;
      const Body = whole.subarray(at, end);
      const { ETag } = await send(sdk.UploadPartCommand, "multi", { UploadId, PartNumber, Body });
      assert.equal(ETag, `"${createHash("md5").update(Body).digest("hex")}"`);
      Parts.push({ ETag, PartNumber });
    }
    const listed = [];
    const asked = { Bucket, Key: key("multi"), UploadId };
    for await (const page of sdk.paginateListParts({ client: s3, pageSize: 1 }, asked)) {
      listed.push(...page.Parts.map(({ ETag, PartNumber }) => ({ ETag, PartNumber })));
    }
    assert.deepEqual(listed, Parts);
    const all = { Bucket, Prefix: key("multi") };
    const open = await s3.send(new sdk.ListMultipartUploadsCommand(all));
    assert.deepEqual(open.Uploads.map((entry) => entry.UploadId), [UploadId]);
    const complete = (MultipartUpload) =>
      send(sdk.CompleteMultipartUploadCommand, "multi", { UploadId, MultipartUpload });
    await refused(complete({ Parts: [...Parts].reverse() }), "InvalidPartOrder", 400);
    await refused(complete({ Parts: [{ ...Parts[0], ETag: Parts[1].ETag }] }), "InvalidPart", 400);
    await complete({ Parts });
    sameBytes((await get("multi")).bytes, whole, "two parts");
    const second = await get("multi", { PartNumber: 2 });
    sameBytes(second.bytes, whole.subarray(PART), "the second part");
    assert.equal(second.PartsCount, 2);
    const { UploadId: gone } = await send(sdk.CreateMultipartUploadCommand, "multi");
    await send(sdk.AbortMultipartUploadCommand, "multi", { UploadId: gone });
    await refused(send(sdk.ListPartsCommand, "multi", { UploadId: gone }), "NoSuchUpload", 404);
  },

  async "odd keys"() {
    const names = JSON.parse(E2E_ODD_KEYS);
    for (const name of names) await put(`odd/${name}`, name);
    for (const name of names) assert.equal((await get(`odd/${name}`)).bytes.toString(), name);
    const wanted = names.map((name) => key(`odd/${name}`)).sort(bytewise);
    assert.deepEqual(await keys("odd/"), wanted);
    assert.deepEqual(await keys("odd/", 1), wanted);
  },

  async ranges() {
    const whole = file("8MiB");
    await put("range", whole);
    const last = 8 * MIB - 1;
    for (const [Range, start, end] of [
      ["bytes=0-0", 0, 0],
      ["bytes=1000-5000000", 1000, 5000000],
      [`bytes=${last - 2}-`, last - 2, last],
      ["bytes=-7", last - 6, last],
      [`bytes=${last}-99999999`, last, last],
    ]) {
      const part = await get("range", { Range });
      sameBytes(part.bytes, whole.subarray(start, end + 1), Range);
      assert.equal(part.ContentRange, `bytes ${start}-${end}/${8 * MIB}`);
      assert.equal(part.$metadata.httpStatusCode, 206);
    }
    await refused(get("range", { Range: `bytes=${8 * MIB}-` }), "InvalidRange", 416);
  },

  async conditions() {
    const { ETag } = await put("condition", "one", { IfNoneMatch: "*" });
    await stale(put("condition", "two", { IfNoneMatch: "*" }));
    await stale(put("condition", "two", { IfMatch: '"0"' }));
    await stale(upload("condition", file("8MiB"), { IfNoneMatch: "*" }));
    assert.equal((await get("condition", { IfMatch: ETag })).bytes.toString(), "one");
    await unmodified(get("condition", { IfNoneMatch: ETag }));
    await put("condition", "two", { IfMatch: ETag });
    await stale(get("condition", { IfMatch: ETag }));
    assert.equal((await get("condition", { IfNoneMatch: ETag })).bytes.toString(), "two");
    const { LastModified } = await head("condition");
    await unmodified(get("condition", { IfModifiedSince: LastModified }));
    await stale(get("condition", { IfUnmodifiedSince: new Date(LastModified - 60_000) }));
    await refused(put("absent", "x", { IfMatch: ETag }), "NoSuchKey", 404);
    await stale(remove("condition", { IfMatch: ETag }));
    assert.equal((await get("condition")).bytes.toString(), "two");
  },

  async copies() {
    await put("source +%2F", "copied", { Metadata: { colour: "red" }, ContentType: "text/css" });
    const from = (name) => encodeURIComponent(`${Bucket}/${key(name)}`);
    const CopySource = from("source +%2F");
    const copy = (name, more = {}) => send(sdk.CopyObjectCommand, name, { CopySource, ...more });
    const answer = await copy("copy");
    const kept = await get("copy");
    assert.equal(answer.CopyObjectResult.ETag, kept.ETag);
    assert.equal(kept.bytes.toString(), "copied");
    assert.deepEqual([kept.Metadata, kept.ContentType], [{ colour: "red" }, "text/css"]);
    await copy("copy", { MetadataDirective: "REPLACE", Metadata: { colour: "blue" } });
    assert.deepEqual((await head("copy")).Metadata, { colour: "blue" });
    await copy("summed", { ChecksumAlgorithm: "SHA256" });
    const { ChecksumSHA256 } = await head("summed", { ChecksumMode: "ENABLED" });
    assert.equal(ChecksumSHA256, hash("sha256", "copied"));
    await stale(copy("never", { CopySourceIfMatch: '"0"' }));
    await refused(copy("never", { CopySource: from("none") }), "NoSuchKey", 404);
    await refused(copy("source +%2F"), "InvalidRequest", 400);

    const { UploadId } = await send(sdk.CreateMultipartUploadCommand, "part copy");
    const Parts = [];
    for (const CopySourceRange of [`bytes=${PART}-${2 * PART - 1}`, "bytes=0-99"]) {
      const PartNumber = Parts.length + 1;
      const source = { CopySource: from("size/100MiB"), CopySourceRange, UploadId, PartNumber };
      const { CopyPartResult } = await send(sdk.UploadPartCopyCommand, "part copy", source);
      Parts.push({ ETag: CopyPartResult.ETag, PartNumber });
    }
    const done = { UploadId, MultipartUpload: { Parts } };
    await send(sdk.CompleteMultipartUploadCommand, "part copy", done);
    const whole = file("100MiB");
    const wanted = Buffer.concat([whole.subarray(PART, 2 * PART), whole.subarray(0, 100)]);
    sameBytes((await get("part copy")).bytes, wanted, "copied parts");
  },

  async "tags and attributes"() {
    await put("tagged", "x", { Tagging: "a=1&b=2", ChecksumAlgorithm: "CRC32C" });
    const tags = async () => (await send(sdk.GetObjectTaggingCommand, "tagged")).TagSet;
    assert.deepEqual(await tags(), [{ Key: "a", Value: "1" }, { Key: "b", Value: "2" }]);
    const Tagging = { TagSet: [{ Key: "c d", Value: "é" }] };
    await send(sdk.PutObjectTaggingCommand, "tagged", { Tagging });
    assert.deepEqual(await tags(), Tagging.TagSet);
    await send(sdk.DeleteObjectTaggingCommand, "tagged");
    assert.deepEqual(await tags(), []);
    const ObjectAttributes = ["ETag", "Checksum", "ObjectSize"];
    const found = await send(sdk.GetObjectAttributesCommand, "tagged", { ObjectAttributes });
    const { ETag, ChecksumCRC32C } = await head("tagged", { ChecksumMode: "ENABLED" });
    assert.deepEqual([found.ObjectSize, `"${found.ETag}"`], [1, ETag]);
    assert.ok(ChecksumCRC32C);
    assert.equal(found.Checksum.ChecksumCRC32C, ChecksumCRC32C);
  },

  async presigned() {
    const Key = key("presigned + odd%20name ü");
    const url = (Command, more = {}) => getSignedUrl(s3, new Command({ Bucket, Key, ...more }));
    const free = new sdk.S3Client({ ...settings, requestChecksumCalculation: "WHEN_REQUIRED" });
    const stored = await getSignedUrl(free, new sdk.PutObjectCommand({ Bucket, Key }));
    assert.equal((await fetch(stored, { method: "PUT", body: "by url" })).status, 200);
    const download = await url(sdk.GetObjectCommand, { ResponseContentType: "text/x-test" });
    const answer = await fetch(download);
    assert.equal(answer.headers.get("content-type"), "text/x-test");
    assert.equal(await answer.text(), "by url");
    const part = await fetch(download, { headers: { Range: "bytes=3-" } });
    assert.deepEqual([part.status, await part.text()], [206, "url"]);
    const forbidden = await fetch(download.replace("text%2Fx-test", "text%2Fhtml"));
    assert.equal(forbidden.status, 403);
    assert.match(await forbidden.text(), /<Code>SignatureDoesNotMatch<\/Code>/);
    assert.equal((await fetch(download, { method: "DELETE" })).status, 403);
    const removal = await url(sdk.DeleteObjectCommand);
    assert.equal((await fetch(removal, { method: "DELETE" })).status, 204);
    assert.equal((await fetch(await url(sdk.GetObjectCommand))).status, 404);
  },

  async "presigned upload by default"() {
    // The SDK does not know the body yet and puts the checksum of none into the query. S3 takes it
    // for a part of what is signed and for nothing else.
    const Key = key("by default");
    const upload = await getSignedUrl(s3, new sdk.PutObjectCommand({ Bucket, Key }));
    assert.match(upload, /x-amz-checksum-crc32=AAAAAA%3D%3D/);
    const answer = await fetch(upload, { method: "PUT", body: "by url" });
    assert.deepEqual([answer.status, await answer.text()], [200, ""]);
    assert.equal((await get("by default")).bytes.toString(), "by url");
    const forged = upload.replace("AAAAAA%3D%3D", "AAAAAQ%3D%3D");
    assert.equal((await fetch(forged, { method: "PUT", body: "forged" })).status, 403);
  },

  async listing() {
    const wanted = [0, 1, 2, 3, 4, 5, 6].map((n) => key(`list/${n}/leaf`));
    for (const name of wanted) await put(name.slice(key("").length), "x");
    assert.deepEqual(await keys("list/", 3), wanted);
    const prefixes = [];
    const asked = { Bucket, Prefix: key("list/"), Delimiter: "/", StartAfter: wanted[1] };
    for await (const page of sdk.paginateListObjectsV2({ client: s3, pageSize: 2 }, asked)) {
      assert.equal(page.KeyCount, page.CommonPrefixes.length);
      prefixes.push(...page.CommonPrefixes.map((entry) => entry.Prefix));
    }
    assert.deepEqual(prefixes, [2, 3, 4, 5, 6].map((n) => key(`list/${n}/`)));
    const first = { Bucket, Prefix: key("list/"), MaxKeys: 6 };
    const old = await s3.send(new sdk.ListObjectsCommand(first));
    assert.deepEqual(old.Contents.map((entry) => entry.Key), wanted.slice(0, 6));
    assert.equal(old.IsTruncated, true);
    const { ETag, Size } = old.Contents[0];
    assert.deepEqual([ETag, Size], [(await head("list/0/leaf")).ETag, 1]);
  },

  async errors() {
    await refused(get("none"), "NoSuchKey", 404);
    await refused(head("none"), "NotFound", 404);
    await refused(send(sdk.ListPartsCommand, "none", { UploadId: "none" }), "NoSuchUpload", 404);
    await refused(put("k".repeat(1025), "x"), "KeyTooLongError", 400);
    const credentials = { accessKeyId: process.env.AWS_ACCESS_KEY_ID, secretAccessKey: "wrong" };
    const forged = new sdk.S3Client({ ...settings, credentials });
    const list = new sdk.ListObjectsV2Command({ Bucket });
    await refused(forged.send(list), "SignatureDoesNotMatch", 403);
    const nobody = { ...credentials, accessKeyId: "NOBODY" };
    const unknown = new sdk.S3Client({ ...settings, credentials: nobody });
    // On purpose not told from a wrong secret.
    await refused(unknown.send(list), "SignatureDoesNotMatch", 403);
    const nowhere = { Bucket: "no-such-bucket-here" };
    await refused(s3.send(new sdk.ListObjectsV2Command(nowhere)), "NoSuchBucket", 404);
    await refused(s3.send(new sdk.HeadBucketCommand(nowhere)), "NotFound", 404);
  },

  async deletes() {
    await remove("multi");
    await remove("multi");
    await refused(head("multi"), "NotFound", 404);
    const doomed = await keys("");
    const Objects = [...doomed, key("none")].map((Key) => ({ Key }));
    const batch = new sdk.DeleteObjectsCommand({ Bucket, Delete: { Objects } });
    const { Deleted, Errors } = await s3.send(batch);
    const sorted = (entries) => entries.map(({ Key }) => Key).sort(bytewise);
    assert.deepEqual(sorted(Deleted), sorted(Objects));
    assert.equal(Errors, undefined);
    assert.deepEqual(await keys(""), []);
  },
};

try {
  await checks[process.argv[2]]();
} catch (error) {
  // What went wrong and where in here; the rest is the inside of the SDK.
  const places = (error.stack ?? "").split("\n").filter((line) => line.includes(import.meta.url));
  const status = error.$metadata?.httpStatusCode ?? "";
  console.error([`${error.name} ${status}: ${error.message}`, ...places].join("\n"));
  process.exitCode = 1;
}
