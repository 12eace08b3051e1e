// Command createandwatch creates a preview job, follows it to its end and prints the addresses of its pages:
//
//	go run ./examples/createandwatch docs-1250000000 slides/a.pptx 'previews/a/${Number}.jpg' dns:///docpreview:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

func main() {
	log.SetFlags(0)
	arguments := append(os.Args[1:], "127.0.0.1:50051")
	if len(arguments) < 4 {
		log.Fatal("usage: createandwatch BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, arguments[0], arguments[1], arguments[2], arguments[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bucket, input, output, target string) error {
	client, err := docpreview.New(target, docpreview.WithUserAgent("createandwatch"))
	if err != nil {
		return err
	}
	defer client.Close()
	request := &docpreviewv1.CreatePreviewJobRequest{
		Bucket:      bucket,
		InputObject: input,
		Output:      &docpreviewv1.ObjectLocation{Object: output},
	}
	for job, err := range client.CreateAndWatch(ctx, request, 10*time.Minute) {
		if err != nil {
			return err
		}
		fmt.Println(job.GetJobId(), job.GetState())
		for _, page := range job.GetResult().GetPages() {
			fmt.Println(page.GetPageNumber(), page.GetUrl())
		}
	}
	return nil
}
