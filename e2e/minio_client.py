"""The minio library, which signs every body chunk by chunk over plain HTTP."""

import datetime
import io

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from common import REGION, SIZES, http, require, same, same_file


def checks(target, work):
    def client(secret):
        # By name: the order of these arguments has changed between releases.
        return Minio(
            endpoint=target.host,
            access_key=target.access_key,
            secret_key=secret,
            region=REGION,
            secure=False,
        )

    minio = client(target.secret_key)
    ours = {"bucket_name": target.bucket}

    def keys():
        found = minio.list_objects(**ours, prefix="minio/", recursive=True)
        return [entry.object_name for entry in found]

    def sizes():
        for name in SIZES:
            key = f"minio/size/{name}"
            minio.fput_object(**ours, object_name=key, file_path=str(work.file(name)))
            back = work.back("minio", name)
            minio.fget_object(**ours, object_name=key, file_path=str(back))
            same_file(back, work.file(name))

    def ranges():
        answer = minio.get_object(
            **ours, object_name="minio/size/8MiB", offset=4194300, length=10
        )
        whole = work.file("8MiB").read_bytes()
        same(answer.read(), whole[4194300:4194310], "a range in the middle")
        answer.close()
        answer.release_conn()

    def presigned():
        life = datetime.timedelta(minutes=5)
        key = "minio/presigned"
        url = minio.presigned_put_object(**ours, object_name=key, expires=life)
        http("PUT", url, body=b"by url")
        url = minio.presigned_get_object(**ours, object_name=key, expires=life)
        same(http("GET", url), b"by url", "presigned GET")

    def errors():
        try:
            body = io.BytesIO(b"x")
            client("wrong").put_object(**ours, object_name="minio/no", data=body, length=1)
        except S3Error as error:
            same(error.code, "SignatureDoesNotMatch", "a wrong secret")
        else:
            require(False, "a wrong secret was accepted")

    def deletes():
        doomed = [DeleteObject(key) for key in keys()]
        left = minio.remove_objects(**ours, delete_object_list=doomed)
        same([str(error) for error in left], [], "errors of a batch")
        same(keys(), [], "what is left")

    return [sizes, ranges, presigned, errors, deletes]
