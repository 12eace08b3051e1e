// Each operation of the suite with the vendor's SDK for Node.js; one JSON line for each. The argument is a file of settings.
'use strict';

const { createHash } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const COS = require('cos-nodejs-sdk-v5');

const set = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const where = { Bucket: set.bucket, Region: set.region };
const report = { ...where, Key: 'report.pdf' };
const [pdf, large] = [set.document, set.large].map((path) => readFileSync(path));
const PART = 1024 * 1024;
const jobs = [];

// Node.js takes the CA from NODE_EXTRA_CA_CERTS.
function connect(SecretId, SecretKey, SecurityToken) {
  return new COS({ SecretId, SecretKey, SecurityToken, Protocol: `${set.scheme}:`, Proxy: set.proxy, ChunkRetryTimes: 0 });
}
const cos = connect(set.secretId, set.secretKey);

async function step(operation, run) {
  let result;
  try {
    result = { operation, value: (await run()) ?? null };
  } catch (error) {
    if (!error.statusCode) throw error;
    result = { operation, error: { status: error.statusCode, code: error.code } };
  }
  console.log(JSON.stringify(result));
}

const etag = (answer) => answer.ETag.replaceAll('"', '');
const list = (value) => (value === undefined ? [] : [value].flat());

async function body(options) {
  return (await cos.getObject({ ...report, ...options })).Body;
}

async function put(with_, Key, Body) {
  return etag(await with_.putObject({ ...where, Key, Body }));
}

async function listObjects() {
  const pages = [];
  for (let Marker = ''; ; ) {
    const answer = await cos.getBucket({ ...where, Prefix: 'list/', Marker, MaxKeys: 2 });
    pages.push(answer.Contents.map((each) => each.Key));
    if (answer.IsTruncated !== 'true') return pages;
    Marker = answer.NextMarker;
  }
}

async function putAndList() {
  for (const key of set.keys) await put(cos, key, key);
  return listObjects();
}

async function deleteOne() {
  await cos.deleteObject({ ...where, Key: set.keys[0] });
  return listObjects();
}

async function uploadInParts() {
  const upload = { ...where, Key: 'parts.bin' };
  upload.UploadId = (await cos.multipartInit(upload)).UploadId;
  const Parts = [];
  for (let at = 0; at < large.length; at += PART) {
    const PartNumber = at / PART + 1;
    const answer = await cos.multipartUpload({ ...upload, PartNumber, Body: large.subarray(at, at + PART) });
    Parts.push({ PartNumber, ETag: answer.ETag });
  }
  const listed = await cos.multipartListPart(upload);
  await cos.multipartComplete({ ...upload, Parts });
  return listed.Part.map((part) => Number(part.PartNumber));
}

async function abort() {
  const upload = { ...where, Key: 'aborted.bin' };
  upload.UploadId = (await cos.multipartInit(upload)).UploadId;
  await cos.multipartUpload({ ...upload, PartNumber: 1, Body: 'part' });
  await cos.multipartAbort(upload);
  await cos.multipartListPart(upload);
}

async function transfer() {
  await cos.uploadFile({ ...where, Key: 'transfer.bin', FilePath: set.large, SliceSize: PART, ChunkSize: PART });
}

// The SDK has no calls for jobs: its samples send requests of their own to the service's host.
async function service(with_, Method, path, { Query, body: sent, bucket = `${set.bucket}.` } = {}) {
  const answer = await with_.request({
    Method,
    Key: path,
    Url: `${set.scheme}://${bucket}ci.${set.region}.myqcloud.com/${path}`,
    Query,
    Body: sent && COS.util.json2xml(sent),
    Headers: sent && { 'Content-Type': 'application/xml' },
  });
  return answer.Response;
}

async function create(with_, key) {
  const Output = { Region: set.region, Bucket: set.bucket, Object: 'pages/${Number}.jpg' };
  const Request = { Tag: 'DocProcess', Input: { Object: key }, Operation: { Output, DocProcess: { TgtType: 'jpg' } } };
  return (await service(with_, 'POST', 'doc_jobs', { body: { Request } })).JobsDetail;
}

async function createJobs() {
  const made = [];
  for (let number = 0; number < 3; number += 1) made.push(await create(cos, 'report.pdf'));
  jobs.push(...made.map((job) => job.JobId));
  return made.map((job) => job.State);
}

async function finished(id) {
  for (;;) {
    const job = (await service(cos, 'GET', `doc_jobs/${id}`)).JobsDetail;
    if (['Success', 'Failed'].includes(job.State)) {
      return [job.State, ...list(job.Operation.DocProcessResult.PageInfo).map((page) => page.TgtUri)];
    }
    await sleep(50);
  }
}

async function listJobs(filters) {
  const pages = [];
  for (let nextToken = ''; ; ) {
    const answer = await service(cos, 'GET', 'doc_jobs', { Query: { tag: 'DocProcess', nextToken, ...filters } });
    pages.push(list(answer.JobsDetail).map((job) => jobs.indexOf(job.JobId)));
    nextToken = answer.NextToken;
    if (!nextToken) return pages;
  }
}

async function queue() {
  return list((await service(cos, 'GET', 'docqueue')).QueueList)[0];
}

async function updateQueue() {
  const { QueueId } = await queue();
  const Request = { Name: 'reports', QueueID: QueueId, State: 'Active', NotifyConfig: set.notify };
  await service(cos, 'PUT', `docqueue/${QueueId}`, { body: { Request } });
  const { Name, NotifyConfig } = await queue();
  return [Name, NotifyConfig.Url];
}

async function buckets() {
  const Query = { regions: set.region, bucketName: set.bucket };
  return list((await service(cos, 'GET', 'docbucket', { Query, bucket: '' })).DocBucketList).map((each) => each.Name);
}

const temporary = (token) => connect(set.temporaryId, set.temporaryKey, token);

const steps = {
  'create bucket': async () => void (await cos.putBucket(where)),
  'head bucket': async () => void (await cos.headBucket(where)),
  'put object': () => put(cos, report.Key, pdf),
  'head object': async () => Number((await cos.headObject(report)).headers['content-length']),
  'get object': async () => createHash('md5').update(await body()).digest('hex'),
  'get a range': async () => String(await body({ Range: 'bytes=0-4' })),
  'copy object': async () => {
    const CopySource = `${set.bucket}.cos.${set.region}.myqcloud.com/${report.Key}`;
    return etag(await cos.putObjectCopy({ ...where, Key: 'copy.pdf', CopySource }));
  },
  'list objects': putAndList,
  'delete object': deleteOne,
  'upload in parts': uploadInParts,
  'abort an upload': abort,
  'transfer manager': transfer,
  'presigned GET': () => cos.getObjectUrl({ ...report, Method: 'GET' }),
  'presigned PUT': () => cos.getObjectUrl({ ...where, Key: 'put by address.txt', Method: 'PUT' }),
  'create jobs': createJobs,
  'get jobs': () => Promise.all(jobs.map(finished)),
  'list jobs': () => listJobs({ size: 2 }),
  'list jobs, oldest first': async () => listJobs({ orderByTime: 'Asc', queueId: (await queue()).QueueId }),
  'list jobs of a state': async () => [await listJobs({ states: 'Failed' }), await listJobs({ states: 'Success,Running' })],
  'list jobs of a time': async () => [
    await listJobs({ startCreationTime: set.later }),
    await listJobs({ endCreationTime: set.later }),
  ],
  'list queues': async () => (await queue()).State,
  'update queue': updateQueue,
  'list buckets of the service': buckets,
  'temporary key': () => put(temporary(set.token), 't.pdf', pdf),
  'temporary key, job': async () => (await create(temporary(set.token), 't.pdf')).State,
  'wrong token': () => put(temporary('wrong'), 't.pdf', pdf),
  'wrong key': () => put(connect(set.secretId, 'wrong'), 'k', 'x'),
  'wrong key, job': () => create(connect(set.secretId, 'wrong'), 'report.pdf'),
  'no such key': () => body({ Key: 'never put' }),
  'no such bucket': () => body({ Bucket: set.missingBucket }),
  'no such job': async () => (await service(cos, 'GET', `doc_jobs/${set.missingJob}`)).NonExistJobIds,
  'job without its document': () => create(cos, 'never put.pdf'),
};

(async () => {
  for (const [operation, run] of Object.entries(steps)) await step(operation, run);
})();
