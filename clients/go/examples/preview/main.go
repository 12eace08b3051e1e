// Command preview makes page images of a local document:
//
//	go run ./examples/preview docs-1250000000 slides.pptx pages dns:///docpreview:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

func main() {
	log.SetFlags(0)
	arguments := append(os.Args[1:], "127.0.0.1:50051")
	if len(arguments) < 4 {
		log.Fatal("usage: preview BUCKET FILE DIRECTORY [TARGET]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, arguments[0], arguments[1], arguments[2], arguments[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bucket, path, directory, target string) error {
	client, err := docpreview.New(target, docpreview.WithUserAgent("preview-example"))
	if err != nil {
		return err
	}
	defer client.Close()
	progress := docpreview.WithProgress(func(now docpreview.Progress) {
		fmt.Fprintf(os.Stderr, "%d of %d pages, %d bytes\n", now.PagesDone, now.Pages, now.Bytes)
	})
	request := &docpreviewv1.CreatePreviewJobRequest{Bucket: bucket}
	_, files, err := client.Preview(ctx, path, directory, request, progress)
	for _, file := range files {
		fmt.Println(file)
	}
	return err
}
