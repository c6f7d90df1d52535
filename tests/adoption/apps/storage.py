"""boto3 against S3 as moto has it, in a process beside the server."""

import os

import boto3
from flask import Flask, request

app = Flask(__name__)
s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["ADOPTION_S3"],
    region_name="eu-central-1",
    aws_access_key_id="adoption",
    aws_secret_access_key="adoption",
)


@app.put("/files/<name>")
def put(name):
    s3.create_bucket(Bucket="shop", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket="shop", Key=name, Body=request.get_data())
    return {"etag": s3.head_object(Bucket="shop", Key=name)["ETag"]}


@app.get("/files/<name>")
def get(name):
    return s3.get_object(Bucket="shop", Key=name)["Body"].read()


@app.get("/files")
def list_():
    return {"keys": [item["Key"] for item in s3.list_objects_v2(Bucket="shop").get("Contents", [])]}
