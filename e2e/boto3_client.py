"""boto3 with its default settings, but for one attempt per request."""

import os
import threading

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from common import (
    MIB, ODD_NAMES, PROXIES, REGION, SIZES, environment, http, require, same, same_file,
)

PART = 5 * MIB


def client(target, tools, secret=None, config=None):
    # Settings come from the environment, as they do for a program that sets none itself; the
    # machine's own do not count.
    for key in list(os.environ):
        if key.startswith("AWS_") or key in PROXIES:
            del os.environ[key]
    for key, value in environment(target, tools).items():
        if key.startswith("AWS_"):
            os.environ[key] = value
    return boto3.client(
        "s3",
        endpoint_url=target.endpoint,
        region_name=REGION,
        aws_access_key_id=target.access_key,
        aws_secret_access_key=secret or target.secret_key,
        config=config,
    )


def code_of(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "no error"


def checks(target, work):
    s3 = client(target, work.tools)
    bucket = target.bucket

    def put(key, body, **more):
        return s3.put_object(Bucket=bucket, Key=f"boto3/{key}", Body=body, **more)

    def get(key, **more):
        return s3.get_object(Bucket=bucket, Key=f"boto3/{key}", **more)

    def head(key, **more):
        return s3.head_object(Bucket=bucket, Key=f"boto3/{key}", **more)

    def keys(prefix, **more):
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"boto3/{prefix}", **more
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def sizes():
        for name, size in SIZES.items():
            s3.upload_file(str(work.file(name)), bucket, f"boto3/size/{name}")
            back = work.back("boto3", name)
            s3.download_file(bucket, f"boto3/size/{name}", str(back))
            same_file(back, work.file(name))
            same(head(f"size/{name}")["ContentLength"], size, "size in HEAD")

    def single_requests():
        for name in ("0", "1", "8MiB-1", "8MiB"):
            with open(work.file(name), "rb") as body:
                put(f"single/{name}", body)
            same(get(f"single/{name}")["Body"].read(), work.file(name).read_bytes(), name)

    def algorithms():
        for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
            try:
                put(f"sum/{algorithm}", b"summed", ChecksumAlgorithm=algorithm)
            except Exception as error:  # botocore has no common class for it
                if "crt" in str(error):
                    continue
                raise
            found = get(f"sum/{algorithm}", ChecksumMode="ENABLED")
            same(found["Body"].read(), b"summed", algorithm)
            if target.strict:
                require(f"Checksum{algorithm}" in found, f"no {algorithm} came back")

    def headers():
        sent = {
            "CacheControl": "max-age=60",
            "ContentDisposition": 'attachment; filename="a b.txt"',
            "ContentEncoding": "identity",
            "ContentLanguage": "de",
            "ContentType": "text/x-test",
            "Metadata": {"colour": "blue", "dash-ed": "1 2  3"},
        }
        put("headers", b"x", **sent)
        for answer in (head("headers"), get("headers")):
            for name, value in sent.items():
                same(answer.get(name), value, name)
        overridden = get("headers", ResponseContentType="image/png")
        same(overridden["ContentType"], "image/png", "response-content-type")

    def odd_keys():
        odd = [f"odd/{name}" for name in ODD_NAMES]
        odd += ["odd/a", "odd/a/b", "odd//double", "odd/../up", "odd/./here", "odd/dir/"]
        odd += ["odd/tab\there", "odd/line\nbreak", "odd/" + "k" * (1024 - len("boto3/odd/"))]
        if not target.strict:
            odd = [key for key in odd if "//" not in key and "/." not in key and len(key) < 600]
        for key in odd:
            put(key, key.encode())
        for key in odd:
            same(get(key)["Body"].read(), key.encode(), key)
        wanted = sorted((f"boto3/{key}" for key in odd), key=str.encode)
        same(keys("odd/"), wanted, "listed keys")
        same(keys("odd/", PaginationConfig={"PageSize": 1}), wanted, "listed one by one")

    def ranges():
        whole = work.file("8MiB").read_bytes()
        for wanted, part in [
            ("bytes=0-0", whole[:1]),
            ("bytes=-7", whole[-7:]),
            ("bytes=8388600-", whole[8388600:]),
            ("bytes=8388600-99999999", whole[8388600:]),
            ("bytes=1000-5000000", whole[1000:5000001]),
        ]:
            found = get("single/8MiB", Range=wanted)
            same(found["ResponseMetadata"]["HTTPStatusCode"], 206, f"status of {wanted}")
            same(found["Body"].read(), part, wanted)
        code = code_of(get, key="single/1", Range="bytes=5-9")
        same(code, "InvalidRange", "a range behind the end")

    def conditions():
        etag = put("cond", b"cond")["ETag"]
        same(get("cond", IfMatch=etag)["Body"].read(), b"cond", "If-Match")
        same(code_of(get, key="cond", IfMatch='"other"'), "PreconditionFailed", "If-Match")
        same(code_of(get, key="cond", IfNoneMatch=etag), "304", "If-None-Match")

    def copies():
        source = {"Bucket": bucket, "Key": "boto3/headers"}
        s3.copy_object(Bucket=bucket, Key="boto3/copy/kept", CopySource=source)
        same(head("copy/kept")["Metadata"]["colour"], "blue", "metadata of a copy")
        s3.copy_object(
            Bucket=bucket,
            Key="boto3/copy/replaced",
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata={"shape": "round"},
            ContentType="text/other",
        )
        found = head("copy/replaced")
        same(found["Metadata"], {"shape": "round"}, "replaced metadata")
        same(found["ContentType"], "text/other", "replaced content type")
        s3.copy_object(
            Bucket=bucket,
            Key="boto3/headers",
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata={"self": "yes"},
        )
        same(head("headers")["Metadata"], {"self": "yes"}, "metadata of a copy onto itself")
        same(get("headers")["Body"].read(), b"x", "bytes of a copy onto itself")
        s3.copy({"Bucket": bucket, "Key": "boto3/size/100MiB"}, bucket, "boto3/copy/100MiB")
        back = work.back("boto3", "copy")
        s3.download_file(bucket, "boto3/copy/100MiB", str(back))
        same_file(back, work.file("100MiB"))

    def multipart():
        key = "boto3/multi"
        whole = work.file("100MiB").read_bytes()[: 2 * PART + 17]
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"m": "1"})["UploadId"]
        ours = {"Bucket": bucket, "Key": key, "UploadId": upload}
        parts = []
        for number, start in enumerate(range(0, len(whole), PART), 1):
            answer = s3.upload_part(**ours, PartNumber=number, Body=whole[start : start + PART])
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        same(len(s3.list_parts(**ours)["Parts"]), 3, "listed parts")
        if target.strict:
            wrong = {"Parts": list(reversed(parts))}
            code = code_of(s3.complete_multipart_upload, **ours, MultipartUpload=wrong)
            same(code, "InvalidPartOrder", "parts out of order")
            uploads = s3.list_multipart_uploads(Bucket=bucket, Prefix=key)["Uploads"]
            same([entry["UploadId"] for entry in uploads], [upload], "open uploads")
        s3.complete_multipart_upload(**ours, MultipartUpload={"Parts": parts})
        found = get("multi")
        same(found["Body"].read(), whole, "a multipart object")
        same(found["Metadata"], {"m": "1"}, "metadata of a multipart object")
        if target.strict:
            require(found["ETag"].endswith('-3"'), f"entity tag {found['ETag']}")
        gone = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        s3.upload_part(Bucket=bucket, Key=key, UploadId=gone, PartNumber=1, Body=b"x")
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=gone)
        code = code_of(s3.list_parts, Bucket=bucket, Key=key, UploadId=gone)
        if target.strict:
            same(code, "NoSuchUpload", "an aborted upload")

    def part_copies():
        key = "boto3/part-copy"
        source = {"Bucket": bucket, "Key": "boto3/size/100MiB"}
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        ours = {"Bucket": bucket, "Key": key, "UploadId": upload}
        parts = []
        for number, (first, last) in enumerate([(PART, 2 * PART - 1), (0, 99)], 1):
            answer = s3.upload_part_copy(
                **ours,
                PartNumber=number,
                CopySource=source,
                CopySourceRange=f"bytes={first}-{last}",
            )
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        s3.complete_multipart_upload(**ours, MultipartUpload={"Parts": parts})
        whole = work.file("100MiB").read_bytes()
        same(get("part-copy")["Body"].read(), whole[PART : 2 * PART] + whole[:100], "copied parts")

    def presigned():
        # By default this client signs URLs for us-east-1 with version 2, which is not spoken here.
        modern = client(target, work.tools, config=Config(signature_version="s3v4"))
        arguments = {"Bucket": bucket, "Key": "boto3/presigned + odd%20name"}
        url = modern.generate_presigned_url("put_object", Params=arguments)
        http("PUT", url, body=b"by url", headers={"Content-Type": ""})
        url = modern.generate_presigned_url("get_object", Params=arguments)
        same(http("GET", url), b"by url", "presigned GET")

    def tags_and_attributes():
        put("tagged", b"x", Tagging="a=1&b%20c=2", ChecksumAlgorithm="SHA256")
        key = {"Bucket": bucket, "Key": "boto3/tagged"}
        same(s3.get_object_tagging(**key)["TagSet"][1], {"Key": "b c", "Value": "2"}, "a tag")
        same(get("tagged")["TagCount"], 2, "number of tags")
        s3.put_object_tagging(**key, Tagging={"TagSet": [{"Key": "d", "Value": ""}]})
        same(s3.get_object_tagging(**key)["TagSet"], [{"Key": "d", "Value": ""}], "new tags")
        s3.delete_object_tagging(**key)
        same(s3.get_object_tagging(**key)["TagSet"], [], "no tags")
        eleven = [{"Key": str(n), "Value": ""} for n in range(11)]
        found = code_of(s3.put_object_tagging, **key, Tagging={"TagSet": eleven})
        same(found, "BadRequest", "eleven tags")
        wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
        told = s3.get_object_attributes(**key, ObjectAttributes=wanted)
        same((told["ObjectSize"], told["StorageClass"]), (1, "STANDARD"), "attributes")
        same(told["Checksum"]["ChecksumType"], "FULL_OBJECT", "kind of the checksum")
        grants = s3.get_object_acl(**key)["Grants"]
        same([grant["Permission"] for grant in grants], ["FULL_CONTROL"], "the private list")

    def forms():
        modern = client(target, work.tools, config=Config(signature_version="s3v4"))
        form = modern.generate_presigned_post(
            bucket,
            "boto3/form/${filename}",
            Fields={"success_action_status": "201", "x-amz-meta-a": "b"},
            Conditions=[
                {"success_action_status": "201"},
                {"x-amz-meta-a": "b"},
                ["content-length-range", 1, 20 * MIB],
            ],
        )
        for name, size in (("small", 10), ("large", 12 * MIB)):
            content = os.urandom(size)
            body = b"".join(
                f'--X\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
                for field, value in form["fields"].items()
            )
            body += f'--X\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
            body += content + b"\r\n--X--\r\n"
            headers = {"Content-Type": "multipart/form-data; boundary=X"}
            answer = http("POST", form["url"], body, headers).decode()
            require(f"<Key>boto3/form/{name}</Key>" in answer, f"a form answered {answer}")
            same(get(f"form/{name}")["Body"].read() == content, True, f"the {name} file")
            same(head(f"form/{name}")["Metadata"], {"a": "b"}, "metadata of a form")

    def listing():
        for n in range(25):
            put(f"list/dir{n % 5}/{n:02}", b"")
        put("list/top", b"")
        found = s3.list_objects_v2(Bucket=bucket, Prefix="boto3/list/", Delimiter="/")
        prefixes = [entry["Prefix"] for entry in found["CommonPrefixes"]]
        same(prefixes, [f"boto3/list/dir{n}/" for n in range(5)], "common prefixes")
        same([entry["Key"] for entry in found["Contents"]], ["boto3/list/top"], "keys beside them")
        paged, token = [], {}
        while True:
            page = s3.list_objects_v2(
                Bucket=bucket, Prefix="boto3/list/", Delimiter="/", MaxKeys=2, **token
            )
            paged += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            paged += [entry["Key"] for entry in page.get("Contents", [])]
            if not page["IsTruncated"]:
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        same(paged, [*prefixes, "boto3/list/top"], "a listing in pages of two")
        old = s3.get_paginator("list_objects").paginate(
            Bucket=bucket, Prefix="boto3/list/", PaginationConfig={"PageSize": 7}
        )
        first = [entry["Key"] for page in old for entry in page.get("Contents", [])]
        same(first, keys("list/"), "the first version of the listing")

    def errors():
        same(code_of(get, key="none"), "NoSuchKey", "a missing key")
        same(code_of(head, key="none"), "404", "HEAD of a missing key")
        forged = client(target, work.tools, secret="wrong")
        same(code_of(forged.list_objects_v2, Bucket=bucket), "SignatureDoesNotMatch", "secret")
        same(code_of(s3.list_objects_v2, Bucket="no-such-bucket-here"), "NoSuchBucket", "bucket")
        if target.strict:
            code = code_of(put, key="bad", body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
            same(code, "BadDigest", "a wrong Content-MD5")
            same(code_of(head, key="bad"), "404", "what a refused upload left")

    def concurrent_uploads():
        bodies = {n: bytes([n]) * 30_000 for n in range(16)}
        failures = []

        def one(n):
            try:
                put(f"parallel/{n}", bodies[n])
                put("parallel/same", bodies[n])
            except Exception as error:  # reported below, in the thread that checks
                failures.append(error)

        threads = [threading.Thread(target=one, args=(n,)) for n in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same(failures, [], "failures of uploads at the same time")
        for n, body in bodies.items():
            same(get(f"parallel/{n}")["Body"].read(), body, f"parallel/{n}")
        require(get("parallel/same")["Body"].read() in bodies.values(), "a mixture of two uploads")
        config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
        s3.upload_file(str(work.file("100MiB")), bucket, "boto3/parallel/parts", Config=config)
        back = work.back("boto3", "parts")
        s3.download_file(bucket, "boto3/parallel/parts", str(back), Config=config)
        same_file(back, work.file("100MiB"))

    def deletes():
        s3.delete_object(Bucket=bucket, Key="boto3/multi")
        s3.delete_object(Bucket=bucket, Key="boto3/multi")
        same(code_of(head, key="multi"), "404", "a deleted key")
        everything = [{"Key": key} for key in keys("")]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": everything, "Quiet": True})
        same(answer.get("Errors", []), [], "errors of a batch")
        same(keys(""), [], "what is left")

    return [
        sizes, single_requests, algorithms, headers, odd_keys, ranges, conditions, copies,
        multipart, part_copies, presigned, tags_and_attributes, forms, listing, errors,
        concurrent_uploads, deletes,
    ]
