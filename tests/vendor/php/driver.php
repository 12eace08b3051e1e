<?php
// Each operation of the suite with the vendor's SDK for PHP; one JSON line for each. The argument is a file of settings.
// PHP takes the CA from its setting curl.cainfo.

require (getenv('COMPOSER_VENDOR_DIR') ?: __DIR__ . '/vendor') . '/autoload.php';

use Qcloud\Cos\Client;
use Qcloud\Cos\Exception\ServiceResponseException;

error_reporting(E_ALL & ~E_DEPRECATED);
const PART = 1 << 20;
$set = json_decode(file_get_contents($argv[1]), true);
$document = file_get_contents($set['document']);
$large = file_get_contents($set['large']);
$jobs = [];

function connect(string $id, string $key, ?string $token = null): Client
{
    global $set;
    return new Client([
        'region' => $set['region'],
        'scheme' => $set['scheme'],
        'proxy' => $set['proxy'],
        'retry' => 0,
        'timeout' => 20,
        'credentials' => ['secretId' => $id, 'secretKey' => $key, 'token' => $token],
    ]);
}

function step(string $operation, callable $run): void
{
    $result = ['operation' => $operation];
    try {
        $result['value'] = $run();
    } catch (ServiceResponseException $refused) {
        $result['error'] = ['status' => $refused->getStatusCode(), 'code' => $refused->getCosErrorCode()];
    }
    echo json_encode($result, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
}

function at(array $more = []): array
{
    global $set;
    return $more + ['Bucket' => $set['bucket']];
}

function etag($answer): string
{
    return trim($answer['ETag'], '"');
}

/** Elements that may come once or many times. */
function several($value): array
{
    return $value === null ? [] : (array_is_list($value) ? $value : [$value]);
}

$cos = connect($set['secretId'], $set['secretKey']);
$wrong = connect($set['secretId'], 'wrong');
$put = fn ($with, $key, $body) => etag($with->putObject(at(['Key' => $key, 'Body' => $body])));
$body = fn ($more = []) => (string) $cos->getObject(at($more + ['Key' => 'report.pdf']))['Body'];

$listObjects = function () use ($cos) {
    for ($pages = [], $marker = ''; ; $marker = $answer['NextMarker']) {
        $answer = $cos->listObjects(at(['Prefix' => 'list/', 'Marker' => $marker, 'MaxKeys' => 2]));
        $pages[] = array_column($answer['Contents'] ?? [], 'Key');
        if (!$answer['IsTruncated']) {
            return $pages;
        }
    }
};

$inParts = function () use ($cos, $large) {
    $upload = at(['Key' => 'parts.bin']);
    $upload['UploadId'] = $cos->createMultipartUpload($upload)['UploadId'];
    $made = [];
    foreach (str_split($large, PART) as $index => $part) {
        $answer = $cos->uploadPart($upload + ['PartNumber' => $index + 1, 'Body' => $part]);
        $made[] = ['PartNumber' => $index + 1, 'ETag' => $answer['ETag']];
    }
    $listed = $cos->listParts($upload)['Parts'];
    $cos->completeMultipartUpload($upload + ['Parts' => $made]);
    return array_map('intval', array_column($listed, 'PartNumber'));
};

$abort = function () use ($cos) {
    $upload = at(['Key' => 'aborted.bin']);
    $upload['UploadId'] = $cos->createMultipartUpload($upload)['UploadId'];
    $cos->uploadPart($upload + ['PartNumber' => 1, 'Body' => 'part']);
    $cos->abortMultipartUpload($upload);
    return $cos->listParts($upload)['UploadId'];
};

$create = function ($with, $key) use ($set) {
    $output = ['Region' => $set['region'], 'Bucket' => $set['bucket'], 'Object' => 'pages/${Number}.jpg'];
    $job = ['Tag' => 'DocProcess', 'Input' => ['Object' => $key], 'Operation' => ['Output' => $output]];
    return $with->createDocProcessJobs(at($job))['JobsDetail'];
};

$createJobs = function () use ($cos, $create, &$jobs) {
    $made = array_map(fn () => $create($cos, 'report.pdf'), range(1, 3));
    $jobs = array_column($made, 'JobId');
    return array_column($made, 'State');
};

$finished = function ($id) use ($cos) {
    do {
        usleep(50_000);
        $job = $cos->describeDocProcessJob(at(['Key' => $id]))['JobsDetail'];
    } while (!in_array($job['State'], ['Success', 'Failed']));
    return [$job['State'], ...array_column(several($job['Operation']['DocProcessResult']['PageInfo']), 'TgtUri')];
};

$listJobs = function (array $filter) use ($cos, &$jobs) {
    for ($pages = [], $token = ''; ; ) {
        $answer = $cos->getDescribeDocProcessJobs(at($filter + ['Tag' => 'DocProcess', 'NextToken' => $token]));
        $found = array_column(several($answer['JobsDetail'] ?? null), 'JobId');
        $pages[] = array_map(fn ($id) => array_search($id, $jobs), $found);
        $token = $answer['NextToken'] ?? '';
        if (!$token) {
            return $pages;
        }
    }
};

$queue = fn () => several($cos->describeDocProcessQueues(at())['QueueList'])[0];

$updateQueue = function () use ($cos, $queue, $set) {
    $id = $queue()['QueueId'];
    $update = ['Key' => $id, 'QueueID' => $id, 'Name' => 'reports', 'State' => 'Active', 'NotifyConfig' => $set['notify']];
    $cos->updateDocProcessQueue(at($update));
    $found = $queue();
    return [$found['Name'], $found['NotifyConfig']['Url']];
};

$temporary = fn ($token) => connect($set['temporaryId'], $set['temporaryKey'], $token);

step('create bucket', fn () => $cos->createBucket(at()) ? null : false);
step('head bucket', fn () => $cos->headBucket(at()) ? null : false);
step('put object', fn () => $put($cos, 'report.pdf', $document));
step('head object', fn () => (int) $cos->headObject(at(['Key' => 'report.pdf']))['ContentLength']);
step('get object', fn () => md5($body()));
step('get a range', fn () => $body(['Range' => 'bytes=0-4']));
step('copy object', function () use ($cos, $set) {
    $source = "{$set['bucket']}.cos.{$set['region']}.myqcloud.com/report.pdf";
    return etag($cos->copyObject(at(['Key' => 'copy.pdf', 'CopySource' => $source])));
});
step('list objects', function () use ($cos, $put, $set, $listObjects) {
    array_map(fn ($key) => $put($cos, $key, $key), $set['keys']);
    return $listObjects();
});
step('delete object', function () use ($cos, $set, $listObjects) {
    $cos->deleteObject(at(['Key' => $set['keys'][0]]));
    return $listObjects();
});
step('upload in parts', $inParts);
step('abort an upload', $abort);
step('transfer manager', fn () => $cos->upload($set['bucket'], 'transfer.bin', $large, ['PartSize' => PART]) ? null : false);
step('presigned GET', fn () => $cos->getObjectUrl($set['bucket'], 'report.pdf'));
step('presigned PUT', fn () => (string) $cos->getPresignedUrl('putObject', at(['Key' => 'put by address.txt', 'Body' => ''])));
step('temporary key', fn () => $put($temporary($set['token']), 't.pdf', $document));
step('wrong token', fn () => $put($temporary('wrong'), 't.pdf', $document));
step('wrong key', fn () => $put($wrong, 'k', 'x'));
step('no such key', fn () => $body(['Key' => 'never put']));
step('no such bucket', fn () => $body(['Bucket' => $set['missingBucket']]));
if ($set['scheme'] === 'https') { // the SDK refuses to send requests for jobs over http
    step('create jobs', $createJobs);
    step('get jobs', fn () => array_map($finished, $jobs));
    step('list jobs', fn () => $listJobs(['Size' => 2]));
    step('list jobs, oldest first', fn () => $listJobs(['OrderByTime' => 'Asc', 'QueueId' => $queue()['QueueId']]));
    step('list jobs of a state', fn () => [$listJobs(['States' => 'Failed']), $listJobs(['States' => 'Success,Running'])]);
    step('list jobs of a time', fn () => [
        $listJobs(['StartCreationTime' => $set['later']]),
        $listJobs(['EndCreationTime' => $set['later']]),
    ]);
    step('list queues', fn () => $queue()['State']);
    step('update queue', $updateQueue);
    step('list buckets of the service', function () use ($cos, $set) {
        $wanted = ['Regions' => $set['region'], 'BucketName' => $set['bucket']];
        return array_column(several($cos->describeDocProcessBuckets($wanted)['DocBucketList']), 'Name');
    });
    step('no such job', fn () => $cos->describeDocProcessJob(at(['Key' => $set['missingJob']]))['NonExistJobIds']);
    step('wrong key, job', fn () => $create($wrong, 'report.pdf')['State']);
    step('job without its document', fn () => $create($cos, 'never put.pdf')['State']);
    step('temporary key, job', fn () => $create($temporary($set['token']), 't.pdf')['State']);
}
