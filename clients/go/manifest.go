package docpreview

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

const manifestName = ".docpreview.json"

// manifestEvery is how often the manifest is written while pages come: what a process that is killed loses.
const manifestEvery = time.Second

// manifest says in a directory which pages of which job are there, for all clients of the gateway.
type manifest struct {
	JobID string `json:"job_id"`
	// Pages has the bytes of each page by name; 0 until it is there.
	Pages map[string]int64 `json:"pages"`

	directory string
	mutex     sync.Mutex
	written   time.Time
}

// ourName is what this package, in any language, may have written. Other names in a manifest are not touched.
var ourName = regexp.MustCompile(`^(page-\d+|sheet-\d+-page-\d+|document)\.[a-z0-9]{1,10}$`)

// openManifest makes a directory one of this job: pages of other jobs are deleted, and the manifest names all of its own.
func openManifest(directory, jobID string, names []string) (*manifest, error) {
	if err := removeOthers(directory, jobID); err != nil {
		return nil, err
	}
	made := &manifest{JobID: jobID, Pages: map[string]int64{}, directory: directory}
	for _, name := range names {
		made.Pages[name] = 0
	}
	earlier := readManifest(directory)
	for name, length := range earlier.Pages {
		if _, wanted := made.Pages[name]; !wanted {
			if err := earlier.remove(name); err != nil {
				return nil, err
			}
			continue
		}
		if info, err := os.Lstat(made.path(name)); err == nil && info.Mode().IsRegular() && info.Size() == length {
			made.Pages[name] = length
		}
	}
	for _, name := range names {
		if earlier.JobID != jobID { // nobody knows what this is the beginning of
			if err := remove(made.part(name)); err != nil {
				return nil, err
			}
		}
	}
	return made, made.write()
}

// removeOthers deletes the pages that the directory's manifest names of another job than this, and then the manifest.
func removeOthers(directory, jobID string) error {
	earlier := readManifest(directory)
	if earlier.JobID == jobID {
		return nil
	}
	for name := range earlier.Pages {
		if err := earlier.remove(name); err != nil {
			return err
		}
	}
	return remove(earlier.path(manifestName))
}

// readManifest gives an empty one where there is none that can be read.
func readManifest(directory string) *manifest {
	found := &manifest{}
	content, err := os.ReadFile(filepath.Join(directory, manifestName))
	if err != nil || json.Unmarshal(content, found) != nil {
		found = &manifest{}
	}
	found.directory = directory
	return found
}

// remove deletes a page and its part, when the name is one of ours.
func (m *manifest) remove(name string) error {
	if !ourName.MatchString(name) {
		return nil
	}
	return errors.Join(remove(m.path(name)), remove(m.part(name)))
}

func (m *manifest) path(name string) string { return filepath.Join(m.directory, name) }
func (m *manifest) part(name string) string { return filepath.Join(m.directory, name+".part") }

// has reports whether the page is there.
func (m *manifest) has(name string) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.Pages[name] > 0
}

// add takes the page in, whose part is whole.
func (m *manifest) add(name string, length int64) error {
	if err := os.Rename(m.part(name), m.path(name)); err != nil {
		return err
	}
	m.mutex.Lock()
	m.Pages[name] = length
	due := time.Since(m.written) >= manifestEvery
	m.mutex.Unlock()
	if due {
		return m.write()
	}
	return nil
}

// write replaces the file as a whole, so that it can always be read.
func (m *manifest) write() error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	content, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	temporary := m.path(manifestName + ".tmp")
	if err := os.WriteFile(temporary, append(content, '\n'), 0o644); err != nil {
		return err
	}
	m.written = time.Now()
	return os.Rename(temporary, m.path(manifestName))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
